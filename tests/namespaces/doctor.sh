#!/usr/bin/env bash
# `vipr doctor`: every fault that direct routing has, made on real servers, is named with its remedy;
# after the remedy there is nothing to say. Healthy clusters get no complaint.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

# Runs the doctor; its findings are in $LAB_DIR/doctor.json.
doctor() {
    local status=0
    lab_vipr doctor --json >"$LAB_DIR/doctor.json" || status=$?
    echo "$status"
}
faults() {
    jq -r '[.real_servers[] | .real_server as $rs | .findings[] | select(.verdict == "fault") |
        "\($rs): \(.item): \(.text)"] + [.strangers[].text] | join("; ")' "$LAB_DIR/doctor.json"
}
remedies() {
    jq -r '.real_servers[].findings[] | select(.verdict == "fault") | .remedy[]' "$LAB_DIR/doctor.json"
}
healthy() {
    local status
    status=$(doctor)
    lab_expect "$1: faults" "$(faults)" ""
    lab_expect "$1: exit status" "$status" 0
}
# Expects one fault, or several, with this text, and this in a remedy: `sick WHAT TEXT REMEDY`.
sick() {
    local status found
    status=$(doctor)
    found=$(faults)
    [[ $found == *"$2"* ]] || lab_fail "$1: '$found' lacks '$2'"
    [[ $(remedies) == *"$3"* ]] || lab_fail "$1: remedies '$(remedies)' lack '$3'"
    lab_expect "$1: exit status; $found" "$status" 1
    lab_expect "$1: real servers concerned" "$(jq -r '[.real_servers[] |
        select(any(.findings[]; .verdict == "fault")) | .real_server] | unique | join(" ")' \
        "$LAB_DIR/doctor.json")" "${4-rs1}"
}
# Carries out the remedies that are commands as they stand, on rs1.
remedy() {
    local line
    while read -r line; do
        echo "   on rs1: $line"
        lab_in rs1 sh -c "$line" >/dev/null
    done < <(remedies | grep -E "^(sysctl|ip address add|for f in|iptables|ip route add)")
}
nginx_again() {
    ip netns pids rs1 | xargs -r kill
    # shellcheck disable=SC2016 # for the inner shell
    lab_wait 10 "nginx of rs1 to end" bash -c '[[ -z $(ip netns pids rs1) ]]'
    lab_exec rs1 nginx -p "$LAB_DIR/rs1" -e "$LAB_DIR/rs1/error.log" -c "$LAB_DIR/rs1/nginx.conf" &
    lab_wait 10 "nginx of rs1" lab_answers rs1 "$1"
}

faults_of_a_topology() {
    local card
    card=$(lab_request_card)
    healthy "$TOPOLOGY"

    ip -n rs1 address delete "$VIP/32" dev lo
    sick "no VIP" "vip: $VIP is not on it" "ip address add $VIP/32 dev lo"
    remedy
    healthy "no VIP, put right"

    lab_sysctl rs1 net/ipv4/conf/all/arp_ignore 0
    lab_sysctl rs1 net/ipv4/conf/all/arp_announce 0
    sick "leaks ARP" "hidden: answers ARP for $VIP on segment front" "net.ipv4.conf.all.arp_ignore=1"
    remedy
    healthy "leaks ARP, put right"

    sed -i "s/listen 80;/listen $(lab_rip 1):80;/" "$LAB_DIR/rs1/nginx.conf"
    nginx_again "$(lab_rip 1)"
    sick "RIP only" "service: nobody listens on $VIP:80/tcp, but on $(lab_rip 1):80/tcp there is somebody" \
        "let the service listen on $VIP"
    sed -i "s/listen $(lab_rip 1):80;/listen 80;/" "$LAB_DIR/rs1/nginx.conf"
    nginx_again 127.0.0.1
    healthy "RIP only, put right"

    ip netns pids rs1 | xargs kill
    sick "no service" "service: nobody listens on $VIP:80/tcp" "start the service"
    nginx_again 127.0.0.1
    healthy "no service, put right"

    lab_in rs1 iptables -A INPUT -d "$VIP" -p tcp --dport 80 -j DROP
    sick "firewall" "service: $VIP:80/tcp does not answer, though $VIP is there" "iptables -I INPUT"
    remedy
    healthy "firewall, put right"
    lab_in rs1 iptables -F INPUT

    ip -n rs1 link set "$card" mtu 1400
    sick "small MTU" "mtu: does not take packets of 1500 bytes" "mtu 1500"
    jq -r '.real_servers[0].findings[] | select(.item == "mtu") | .text' "$LAB_DIR/doctor.json" |
        grep -q "does those of 1400" || lab_fail "the MTU is not measured"
    ip -n rs1 link set "$card" mtu 1500
    healthy "small MTU, put right"

    ip -n director link set "rs1-$card" down
    sick "off" "neighbor: no answer for $(lab_rip 1)" "look at its cable"
    ip -n director link set "rs1-$card" up
    lab_wait 40 "rs1 to be found again" lab_vipr_is_resolved
    healthy "off, put right"

    # A second machine with the address of rs1.
    lab_namespace twin
    lab_cable twin "$card" 52:54:00:00:00:77 "$([[ $card == back ]] && echo br-backend || echo br-vip)"
    ip -n twin address add "$(lab_rip 1)/24" dev "$card"
    sick "two with one address" "is answered for by 52:54:00:00:0" "change one"
    ip netns delete twin
    lab_wait 10 "the twin to be gone" lab_in rs1 true
    healthy "two with one address, put right"
}

lab_up "${DOCTOR_TOPOLOGY:-two-segments}"
lab_vipr_start "$(lab_config)"
if [[ ! ${DOCTOR_MORE:-} ]]; then
    faults_of_a_topology
    lab_expect_balance
    exit
fi

# What only two segments have: answers that leave by another card than requests come in by.
lab_sysctl rs1 net/ipv4/conf/all/rp_filter 1
lab_sysctl rs1 net/ipv4/conf/back/rp_filter 1
sick "reverse path filter" "clients: does not answer 192.0.2.2" "rp_filter"
remedy
healthy "reverse path filter, put right"
ip -n rs1 address delete 192.0.2.11/24 dev front
sick "no route back" "clients: does not answer 192.0.2.2" "route"
ip -n rs1 address add 192.0.2.11/24 dev front
healthy "no route back, put right"

# It sends back what it is given.
ip -n rs1 address delete "$VIP/32" dev lo
lab_sysctl rs1 net/ipv4/ip_forward 1
ip -n rs1 route add "$VIP/32" via 10.0.0.1 dev back
sick "a loop" "vip: $VIP is not on it: it sends packets for it back" "ip address add"
ip -n rs1 route delete "$VIP/32"
lab_sysctl rs1 net/ipv4/ip_forward 0
remedy
healthy "a loop, put right"

# Its MAC is another than the configured one; it is on another segment than configured.
sed 's/^address = "10.0.0.11"$/&\nmac = "52:54:00:00:00:99"/' "$(lab_config)" >"$LAB_DIR/mac.toml"
lab_vipr_stop
lab_vipr_start "$LAB_DIR/mac.toml"
sick "another MAC" "neighbor: 10.0.0.11 is at $(lab_back_mac 1), not at 52:54:00:00:00:99" \
    "mac = \"$(lab_back_mac 1)\""
sed -i "s/52:54:00:00:00:99/$(lab_back_mac 1)/" "$LAB_DIR/mac.toml"
lab_vipr reload >/dev/null
healthy "another MAC, put right"
sed 's/^address = "10.0.0.11"$/address = "192.0.2.11"\nsegment = "back"/' "$(lab_config)" >"$LAB_DIR/mac.toml"
lab_vipr reload >/dev/null
sick "another segment" "neighbor: 192.0.2.11 answers on segment front, not on back" 'segment = "front", and for that segment role = "both"'
sed -i 's/^segment = "back"$/segment = "front"/; s/^role = "vip"$/role = "both"/' "$LAB_DIR/mac.toml"
lab_vipr reload >/dev/null
healthy "another segment, put right"

# The same MAC on two machines.
cp "$(lab_config)" "$LAB_DIR/mac.toml"
lab_vipr reload >/dev/null
lab_wait 10 "all to be found" lab_vipr_is_resolved
ip -n rs2 link set back down
ip -n rs2 link set back address "$(lab_back_mac 1)"
ip -n rs2 link set back up
sick "one MAC, two machines" "are two machines with one MAC" "a MAC of its own" "rs1 rs2"
ip -n rs2 link set back down
ip -n rs2 link set back address "$(lab_back_mac 2)"
ip -n rs2 link set back up
lab_wait 40 "all to be found" lab_status_is \
    '.services[0].real_servers[1].mac' "$(lab_back_mac 2)"
healthy "one MAC, two machines, put right"

# A service over UDP that answers from the wrong address, as those do that listen on all addresses
# and do not mind which one was asked.
cat >"$LAB_DIR/udp.pl" <<'PERL'
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(Proto => "udp", LocalPort => 7007, LocalAddr => $ARGV[0])
    or die "$!";
my $data;
while (1) { my $peer = $socket->recv($data, 100); $socket->send("pong", 0, $peer); }
PERL
lab_exec rs1 perl "$LAB_DIR/udp.pl" 0.0.0.0 &
udp=$!
lab_wait 10 "the service over UDP" lab_in rs1 bash -c 'ss -Hlun | grep -q :7007'
cat >>"$LAB_DIR/mac.toml" <<TOML
[[service]]
name = "ping"
vip = "$VIP"
protocol = "udp"
ports = 7007
[service.check]
kind = "udp"
send = "ping"
interval = "1s"
[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
TOML
lab_vipr reload >/dev/null
sick "the wrong address" "answers from 10.0.0.11" "bind it to $VIP"
kill "$udp"
wait "$udp" || true
lab_exec rs1 perl "$LAB_DIR/udp.pl" "$VIP" &
lab_wait 10 "the service over UDP on the VIP" lab_in rs1 bash -c 'ss -Hlun | grep -q "192.0.2.10:7007"'
healthy "the wrong address, put right"
# And a clock of checks that is too slow.
sed -i 's/^interval = "1s"$/interval = "5m"/' "$LAB_DIR/mac.toml"
lab_vipr reload >/dev/null
sick "slow checks" "checks: a real server that dies gets connections for up to 5m more" "a shorter interval"
sed -i 's/^interval = "5m"$/interval = "1s"/' "$LAB_DIR/mac.toml"
lab_vipr reload >/dev/null
healthy "slow checks, put right"

# Without a running router.
lab_vipr_stop
lab_capture client client front arp
healthy_alone() {
    local status=0
    lab_in director "$VIPR" doctor -c "$(lab_config)" --json >"$LAB_DIR/doctor.json" || status=$?
    lab_expect "alone: faults" "$(faults)" ""
    lab_expect "alone: exit status" "$status" 0
}
healthy_alone
lab_capture_stop
lab_expect "alone: claims to the VIP" \
    "$(lab_count client "arp and ether src $DIRECTOR_FRONT_MAC and arp[14:4] = 0xc000020a")" 0

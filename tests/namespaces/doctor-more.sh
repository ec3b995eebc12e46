#!/usr/bin/env bash
# `vipr doctor`: a real server that sends back what it is given, or is on another segment than configured;
# faults of UDP; and the doctor where no router runs.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"
# shellcheck source=tests/namespaces/support/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/support/doctor.sh"

lab_up two-segments
cp "$(lab_config)" "$CONFIG"
lab_vipr_start "$CONFIG"

# It sends back what it is given.
ip -n rs1 address delete "$VIP/32" dev lo
lab_sysctl rs1 net/ipv4/ip_forward 1
ip -n rs1 route add "$VIP/32" via 10.0.0.1 dev back
sick "a loop" "vip: $VIP is not on it: it sends packets for it back" "ip address add"
ip -n rs1 route delete "$VIP/32"
lab_sysctl rs1 net/ipv4/ip_forward 0
remedy rs1
healthy "a loop, put right"

# It is on another segment than configured.
configured 's/^address = "10.0.0.11"$/address = "192.0.2.11"\nsegment = "back"/'
sick "another segment" "neighbor: 192.0.2.11 answers on segment front, not on back" 'segment = "front", and for that segment role = "both"'
configured 's/^segment = "back"$/segment = "front"/; s/^role = "vip"$/role = "both"/'
healthy "another segment, put right"
cp "$(lab_config)" "$CONFIG"
lab_vipr reload >/dev/null
lab_wait 10 "all to be found" lab_vipr_is_resolved

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
cat >>"$CONFIG" <<TOML
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

# Without a running router.
lab_vipr_stop
lab_capture client client front arp
healthy "alone" -c "$CONFIG"
lab_capture_stop
lab_expect "alone: claims to the VIP" \
    "$(lab_count client "arp and ether src $DIRECTOR_FRONT_MAC and arp[14:4] = 0xc000020a")" 0

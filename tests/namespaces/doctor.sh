#!/usr/bin/env bash
# `vipr doctor`: every fault that direct routing has, made on real servers, is named with its remedy;
# after the remedy there is nothing to say. Healthy clusters get no complaint.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"
# shellcheck source=tests/namespaces/support/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/support/doctor.sh"

nginx_again() {
    ip netns pids rs1 | xargs -r kill
    # shellcheck disable=SC2016 # for the inner shell
    lab_wait 10 "nginx of rs1 to end" bash -c '[[ -z $(ip netns pids rs1) ]]'
    lab_exec rs1 nginx -p "$LAB_DIR/rs1" -e "$LAB_DIR/rs1/error.log" -c "$LAB_DIR/rs1/nginx.conf" &
    lab_wait 10 "nginx of rs1" lab_answers rs1 "$1"
}

# What of the cluster is of the family.
family() {
    FAMILY=$1
    if [[ $FAMILY == 4 ]]; then
        vip=$VIP rip=$(lab_rip 1) rip_2=$(lab_rip 2)
        host=32 net=24 at_vip=$VIP at_rip=$rip filter=iptables any=80
        clients=192.0.2.0/24 director=192.0.2.2
        cp "$(lab_config)" "$CONFIG"
    else
        vip=$VIP6 rip=$(lab_rip6 1) rip_2=$(lab_rip6 2)
        host=128 net=64 at_vip=[$VIP6] at_rip=[$rip] filter=ip6tables any="\\[::\\]:80"
        clients=2001:db8:0:1::/64 director=2001:db8:0:1::2
        lab_up_ipv6
        # Whose card was off has its addresses still.
        lab_sysctl rs1 net/ipv6/conf/all/keep_addr_on_down 1
        lab_config_ipv6 >"$CONFIG"
    fi
}

faults_of_a_topology() {
    local card
    card=$(lab_request_card)
    healthy "a cluster"

    ip -n rs1 address delete "$vip/$host" dev lo
    sick "no VIP" "vip: $vip is not on it" "ip address add $vip/$host dev lo"
    remedy rs1
    healthy "no VIP, put right"

    if [[ $FAMILY == 4 ]]; then
        lab_sysctl rs1 net/ipv4/conf/all/arp_ignore 0
        lab_sysctl rs1 net/ipv4/conf/all/arp_announce 0
        sick "leaks ARP" "hidden: answers ARP for $vip on segment front" "net.ipv4.conf.all.arp_ignore=1"
        remedy rs1
        healthy "leaks ARP, put right"
    else
        ip -n rs1 address delete "$vip/128" dev lo
        ip -n rs1 address add "$vip/64" dev front nodad
        sick "the VIP on a card" "hidden: answers neighbor solicitations for $vip on segment front" \
            "ip address flush to $vip"
        remedy rs1
        healthy "the VIP on a card, put right"
    fi

    sed -i "s/listen $any;/listen $at_rip:80;/" "$LAB_DIR/rs1/nginx.conf"
    nginx_again "$at_rip"
    sick "RIP only" "service: nobody listens on $at_vip:80/tcp, but on $at_rip:80/tcp there is somebody" \
        "let the service listen on $vip"
    cp "$LAB_DIR/nginx.conf" "$LAB_DIR/rs1/nginx.conf"
    nginx_again 127.0.0.1
    healthy "RIP only, put right"

    ip netns pids rs1 | xargs kill
    sick "no service" "service: nobody listens on $at_vip:80/tcp" "start the service"
    nginx_again 127.0.0.1
    healthy "no service, put right"

    lab_in rs1 "$filter" -A INPUT -d "$vip" -p tcp --dport 80 -j DROP
    sick "firewall" "service: $at_vip:80/tcp does not answer, though $vip is there" "$filter -I INPUT"
    remedy rs1
    healthy "firewall, put right"
    lab_in rs1 "$filter" -F INPUT

    ip -n rs1 link set "$card" mtu 1400
    sick "small MTU" "mtu: does not take packets of 1500 bytes" "mtu 1500"
    [[ $(faults) == *"does those of 1400" ]] || lab_fail "the MTU is not measured: $(faults)"
    remedy rs1
    healthy "small MTU, put right"

    ip -n rs1 link set "$card" down
    sick "off" "neighbor: no answer for $rip" "look at its cable"
    remedy rs1
    # In IPv6 bridges have to learn again what its card listens to.
    lab_wait 40 "rs1 to be found again" is_healthy
    healthy "off, put right"

    # A second machine with the address of rs1.
    lab_namespace twin
    lab_cable twin "$card" 52:54:00:00:02:77 "${BRIDGES[-1]}"
    lab_sysctl twin "net/ipv6/conf/$card/accept_dad" 0
    lab_sysctl twin "net/ipv6/conf/$card/disable_ipv6" 0
    ip -n twin address add "$rip/$net" dev "$card"
    sick "two with one address" "$rip is answered for by $(lab_mac 1) and 52:54:00:00:02:77" "change one"
    ip -n twin address delete "$rip/$net" dev "$card"
    healthy "two with one address, put right"
    ip netns delete twin

    configured "s/^address = \"$rip\"\$/&\nmac = \"52:54:00:00:00:99\"/"
    sick "another MAC" "neighbor: $rip is at $(lab_mac 1), not at 52:54:00:00:00:99" "mac = \"$(lab_mac 1)\""
    configured "s/^mac = .*:99\"/$(remedies | sed -nE 's/^in the configuration: (mac = [^,]*),.*/\1/p')/"
    healthy "another MAC, put right"
    configured "/^mac = \"$(lab_mac 1)\"/d"

    # The same MAC on two machines.
    lab_wait 40 "all to be found" lab_vipr_is_resolved
    ip -n rs2 link set "$card" address "$(lab_mac 1)"
    sick "one MAC, two machines" "$rip and $rip_2 are two machines with one MAC" "a MAC of its own" "rs1 rs2"
    remedy rs2
    lab_wait 40 "rs2 to be found with its own" lab_status_is \
        '.services[0].real_servers[1].mac' 02:22:22:22:22:22
    healthy "one MAC, two machines, put right"

    # A clock of checks that is too slow, and one that is not.
    configured "\$a [service.check]\nkind = \"tcp\"\ninterval = \"5m\""
    sick "slow checks" "checks: a real server that dies gets connections for up to 5m more" \
        "a shorter interval" "rs1 rs2 rs3"
    configured 's/^interval = "5m"$/interval = "1s"/'
    healthy "slow checks, put right"
}

# What only two segments have: answers that leave by another card than requests come in by.
faults_of_two_segments() {
    local asked
    if [[ $FAMILY == 4 ]]; then
        lab_sysctl rs1 net/ipv4/conf/all/rp_filter 1
        lab_sysctl rs1 net/ipv4/conf/back/rp_filter 1
        sick "reverse path filter" "clients: does not answer $director" "rp_filter"
        remedy rs1
        healthy "reverse path filter, put right"
    fi
    ip -n rs1 "-$FAMILY" route delete "$clients" dev front
    sick "no route back" "clients: does not answer $director" "and if that fails: a default route"
    asked=$(remedies | sed -n 's/, and if that fails: a default route$//p')
    ! lab_in rs1 sh -c "$asked" 2>/dev/null || lab_fail "$asked: does not fail"
    ip -n rs1 "-$FAMILY" route add default dev front
    lab_in rs1 sh -c "$asked" >/dev/null
    healthy "no route back, put right"
}

lab_up "${DOCTOR_TOPOLOGY:-two-segments}"
family "${DOCTOR_FAMILY:-4}"
cp "$LAB_DIR/rs1/nginx.conf" "$LAB_DIR/nginx.conf"
lab_vipr_start "$CONFIG"
faults_of_a_topology
[[ $TOPOLOGY == one-arm ]] || faults_of_two_segments
lab_expect_balance

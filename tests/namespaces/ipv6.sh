#!/usr/bin/env bash
# HTTP over IPv6 through the VIP on both topologies, behind bridges that pass multicast frames on to
# listeners only: solicitations for the VIP arrive because vipr says that it listens.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

requests() {
    lab_in client curl -sS --max-time 20 --connect-timeout 5 -H 'Connection: close' \
        "http://[$VIP6]/?[1-$1]"
}

listens() {
    bridge -n director mdb show dev br-vip | grep -q "port vipr-front grp $1 "
}

neighbor() {
    lab_in client ip -6 neigh show "$VIP6" dev front | sed -n 's/.* lladdr \([^ ]*\).*/\1/p'
}

for topology in two-segments one-arm; do
    lab_up "$topology"
    lab_up_ipv6
    lab_config_ipv6 >"$LAB_DIR/vipr.toml"
    lab_vipr_start "$LAB_DIR/vipr.toml"
    lab_wait 10 "the bridge to know that vipr listens for the VIP" listens ff02::1:ff00:10
    # Until its first query has been answered a bridge passes everything on to everyone.
    sleep 1.5
    lab_capture client client front icmp6
    lab_capture front director vipr-front
    lab_expect "$topology: answers a real server" "$(requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
    lab_expect "$topology: the client's MAC for the VIP" "$(neighbor)" "$DIRECTOR_FRONT_MAC"
    lab_expect "$topology: ping" \
        "$(lab_in client ping -6 -c 2 -i 0.2 -W 2 -s 1400 "$VIP6" | grep -o '[0-9]* received')" "2 received"
    lab_in client ping -6 -c 1 -W 1 2001:db8:0:1::99 >"$LAB_DIR/nobody" || true

    # Another station may not have the VIP as its address: it asks, and is told.
    lab_namespace other
    lab_cable other front 52:54:00:00:00:66 br-vip
    lab_sysctl other net/ipv6/conf/all/disable_ipv6 0
    ip -n other address add "$VIP6/64" dev front
    lab_wait 10 "duplicate address detection" \
        bash -c 'nsenter --net=/run/netns/other -- ip -6 address show dev front dadfailed | grep -q "'"$VIP6"'"'
    lab_capture_stop

    lab_expect "$topology: who says that it has the VIP" \
        "$(tcpdump -e -r "$LAB_DIR/client.pcap" -n -Z root "icmp6 and ip6[40] == 136" 2>/dev/null |
            grep -F "tgt is $VIP6" | awk '{ print $2 }' | sort -u)" "$DIRECTOR_FRONT_MAC"
    lab_expect "$topology: solicitations for nobody's address that reach vipr, though asked" \
        "$(lab_count front 'icmp6 and dst ff02::1:ff00:99'), $(($(lab_count client 'icmp6 and dst ff02::1:ff00:99') > 0))" "0, 1"
    lab_expect "$topology: replies at the router" \
        "$(lab_count front "tcp and ip6 src $VIP6")" 0
    lab_expect "$topology: conflicts" "$(lab_status '.conflicts | length')" 0
    lab_expect_balance
    lab_vipr_stop
    ip netns delete other
    lab_down
done

#!/usr/bin/env bash
# The cluster itself, without vipr: every real server answers for the VIP, and none of them says so
# by ARP. With the filter off they all do, which shows that the look is able to see it.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

for topology in two-segments one-arm; do
    lab_up "$topology"
    for number in "${REAL_SERVERS[@]}"; do
        lab_in client ip neigh replace "$VIP" lladdr "$(lab_front_mac "$number")" dev front
        lab_expect "$topology: the answer of rs$number" "$(lab_requests 1)" "rs$number"
    done
    lab_in client ip neigh del "$VIP" dev front

    lab_capture client client front arp
    lab_expect "$topology: arping the VIP" "$(lab_arping client front "$VIP")" silence
    lab_expect "$topology: arping a real server" "$(lab_arping client front 192.0.2.12)" answered
    lab_expect "$topology: who answers for the VIP" "$(lab_arp_answerers "$VIP")" ""
    for number in "${REAL_SERVERS[@]}"; do
        lab_sysctl "rs$number" net/ipv4/conf/all/arp_ignore 0
    done
    lab_expect "$topology: arping with the filter off" "$(lab_arping client front "$VIP")" answered
    lab_expect "$topology: who answers now" "$(lab_arp_answerers "$VIP")" \
        "$(for number in "${REAL_SERVERS[@]}"; do lab_front_mac "$number"; done)"
    lab_capture_stop
    lab_down
done

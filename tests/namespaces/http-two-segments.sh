#!/usr/bin/env bash
# HTTP through the VIP, real servers on a segment of their own: weights obeyed, one MAC for the VIP,
# packets delivered byte for byte, no reply through the router.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_vipr_start "$(lab_config)"
lab_capture client client front
lab_capture front director vipr-front
lab_capture back director vipr-back

lab_expect "answers a real server" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
lab_expect "the client's MAC for the VIP" "$(lab_client_arp "$VIP")" "$DIRECTOR_FRONT_MAC"
lab_expect "connections in status" \
    "$(lab_status '[.services[0].real_servers[].connections] | join(" ")')" "30 20 10"
lab_capture_stop

lab_expect "who answers ARP for the VIP" "$(lab_arp_answerers "$VIP")" "$DIRECTOR_FRONT_MAC"
lab_expect "replies at the router" \
    "$(lab_count front "ip src $VIP") + $(lab_count back "ip src $VIP")" "0 + 0"
lab_expect "requests and replies are there to be seen at the client" \
    "$(($(lab_count client "ip src $VIP") >= 60 && $(lab_count client "ip dst $VIP") >= 60))" 1
# Bytes are not compared here: the client leaves its checksums to its card.
lab_expect "requests at the client that vipr does not see" \
    "$(($(lab_count client "ip dst $VIP") - $(lab_count front "ip dst $VIP")))" 0
lab_expect "packets that vipr changed, added or lost" \
    "$(diff <(lab_packets front "ip dst $VIP") <(lab_packets back "ip dst $VIP") || true)" ""
lab_expect "frames out with a source MAC that is not the router's" \
    "$(lab_count back "ip dst $VIP and not ether src $DIRECTOR_BACK_MAC")" 0
lab_expect "frames out by real server" "$(for number in "${REAL_SERVERS[@]}"; do
    (($(lab_count back "ip dst $VIP and ether dst $(lab_back_mac "$number")") > 0)) && echo "rs$number"
done)" $'rs1\nrs2\nrs3'
lab_expect_balance

#!/usr/bin/env bash
# HTTP through the VIP on a single segment: client, router and real servers on one bridge.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up one-arm
lab_vipr_start "$(lab_config)"
lab_capture client client front
lab_capture front director vipr-front

lab_expect "answers a real server" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
lab_expect "the client's MAC for the VIP" "$(lab_client_arp "$VIP")" "$DIRECTOR_FRONT_MAC"
lab_capture_stop

lab_expect "who answers ARP for the VIP" "$(lab_arp_answerers "$VIP")" "$DIRECTOR_FRONT_MAC"
lab_expect "replies at the router" "$(lab_count front "ip src $VIP")" 0
lab_expect "replies that are not from a real server's card" \
    "$(lab_count client "ip src $VIP and not ether src $(lab_front_mac 1) and not ether src $(lab_front_mac 2) and not ether src $(lab_front_mac 3)")" 0
# Bytes are not compared here: the client leaves its checksums to its card.
lab_expect "requests at the client that vipr does not see" \
    "$(($(lab_count client "ip dst $VIP") - $(lab_count front "ip dst $VIP and ether dst $DIRECTOR_FRONT_MAC")))" 0
lab_expect "packets that vipr changed, added or lost" \
    "$(diff <(lab_packets front "ip dst $VIP and ether dst $DIRECTOR_FRONT_MAC") \
        <(lab_packets front "ip dst $VIP and ether src $DIRECTOR_FRONT_MAC") || true)" ""
lab_expect_balance

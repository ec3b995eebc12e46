#!/usr/bin/env bash
# A real server that has lost the VIP and forwards packets sends them back to the router. They are
# dropped as a loop, and the real server is named.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

for topology in two-segments one-arm; do
    lab_up "$topology"
    lab_vipr_start "$(lab_config)"
    lab_expect "$topology: requests" "$(lab_requests 6 | lab_tally)" "3 rs1, 2 rs2, 1 rs3"
    lab_expect "$topology: loops so far" "$(lab_status .counters.drops.loop)" 0

    ip -n rs1 address del "$VIP/32" dev lo
    lab_sysctl rs1 net/ipv4/ip_forward 1
    lab_sysctl rs1 net/ipv4/conf/all/send_redirects 0
    lab_sysctl rs1 net/ipv4/conf/front/send_redirects 0
    status=0
    lab_in client curl -s --max-time 3 "http://$VIP/" || status=$?
    lab_expect "$topology: a request to a real server that sends it back is not answered" "$status" 28
    lab_expect "$topology: loops are counted" "$(($(lab_status .counters.drops.loop) > 0))" 1
    lab_expect "$topology: frames that went round: hardly any" \
        "$(($(lab_status .counters.drops.loop) < 20))" 1
    lab_wait 5 "the log to name rs1" lab_says "$LAB_DIR/vipr.log" \
        "real server rs1: sends traffic for VIP $VIP back"

    lab_sysctl rs1 net/ipv4/ip_forward 0
    ip -n rs1 address add "$VIP/32" dev lo
    lab_expect "$topology: requests when rs1 is repaired" "$(lab_requests 6 | lab_tally)" \
        "3 rs1, 2 rs2, 1 rs3"
    lab_expect_balance
    lab_vipr_stop
    lab_down
done

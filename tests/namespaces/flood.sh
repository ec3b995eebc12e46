#!/usr/bin/env bash
# A flood on one segment does not starve the other: requests are answered while a real server
# throws datagrams at the router.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_vipr_start "$(lab_config)"

dropped_is_over() {
    (($(lab_status .counters.dropped) > $1))
}

# To an address that leads to the router and that nobody has.
lab_in rs3 ip neigh replace 10.0.0.99 lladdr "$DIRECTOR_BACK_MAC" dev back
lab_exec rs3 socat -u -b 64 /dev/zero UDP-SENDTO:10.0.0.99:9 2>"$LAB_DIR/flood" &
flood=$!
lab_wait 10 "the flood to arrive" dropped_is_over 20000
before=$(lab_status .counters.dropped)
lab_expect "requests in the flood" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
after=$(lab_status .counters.dropped)
kill -0 "$flood"
lab_expect "the flood went on: $((after - before)) frames" "$((after - before > 1000))" 1
kill "$flood"
lab_expect_balance

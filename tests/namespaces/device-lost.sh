#!/usr/bin/env bash
# Its devices change under a running router: down and up, out of the bridge and back, deleted. It
# serves again each time, and says what happened.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_vipr_start "$(lab_config)"

serves() {
    lab_expect "requests $1" "$(lab_requests 6 | lab_tally)" "3 rs1, 2 rs2, 1 rs3"
}

serves "at first"
for tap in vipr-front vipr-back; do
    ip -n director link set "$tap" down
    ip -n director link set "$tap" up
    serves "after $tap was down and up"
done
# Nothing is to be sent to it, and it is noticed all the same.
ip -n director link set vipr-front down
lab_wait 10 "the log to say that it is down" lab_says "$LAB_DIR/vipr.log" "vipr-front is down"
ip -n director link set vipr-front up
lab_wait 10 "the log to say that it is up" lab_says "$LAB_DIR/vipr.log" "vipr-front is up again"
serves "after vipr-front was down for long"
ip -n director link set vipr-back nomaster
ip -n director link set vipr-back master br-backend
serves "after vipr-back was out of its bridge"
for tap in vipr-front:br-vip vipr-back:br-backend; do
    ip -n director link delete "${tap%:*}"
    lab_wait 10 "${tap%:*} to be made again" \
        ip -n director link show "${tap%:*}" master "${tap#*:}" up >/dev/null 2>&1
    lab_wait 10 "the log to name ${tap%:*}" lab_says "$LAB_DIR/vipr.log" "${tap%:*} is gone"
    serves "after ${tap%:*} was deleted"
done
lab_expect_balance
lab_vipr_stop

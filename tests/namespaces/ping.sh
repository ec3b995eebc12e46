#!/usr/bin/env bash
# The VIP answers ping while one of its services is up, and not when none is; other addresses of
# the router never.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_vipr_start "$(lab_config)"
lab_capture client client front icmp

pings() {
    { lab_in client ping -n -q -c 3 -i 0.05 -W 1 "$@" || true; } | sed -n 's/.* \([0-9]*\) received.*/\1/p'
}

lab_expect "small pings answered" "$(pings "$VIP")" 3
lab_expect "full-sized pings answered" "$(pings -s 1472 -M 'do' "$VIP")" 3
lab_expect "odd-sized pings answered" "$(pings -s 57 "$VIP")" 3
lab_capture_stop
lab_expect "answers that are not from the director" \
    "$(lab_count client "icmp[0] = 0 and not ether src $DIRECTOR_FRONT_MAC")" 0
lab_expect "answers from the director" \
    "$(lab_count client "icmp[0] = 0 and ether src $DIRECTOR_FRONT_MAC")" 9

# A router that finds none of its real servers.
lab_vipr_stop
for number in "${REAL_SERVERS[@]}"; do
    ip -n director link set "rs$number-back" down
done
lab_vipr_start "$(lab_config)" any
lab_wait 20 "the real servers to be given up" lab_status_is '.services[0].up' false
lab_expect "pings answered for a VIP that is down" "$(pings "$VIP")" 0

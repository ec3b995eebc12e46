#!/usr/bin/env bash
# A real server's MAC is found by ARP: requests wait for one that comes up late; one that falls
# silent is down for new connections, says so, and comes back.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
state_is() {
    lab_status_is ".services[0].real_servers[] | select(.name == \"$1\") | .state" "$2"
}

# No real server is there when the router starts, and a client asks at once.
for number in "${REAL_SERVERS[@]}"; do
    ip -n director link set "rs$number-back" down
done
lab_capture back director br-backend "arp or dst $VIP"
lab_vipr_start "$(lab_config)" any
lab_in client curl -sS --max-time 20 "http://$VIP/" >"$LAB_DIR/first" &
request=$!
lab_wait 3 "the first request to be held" lab_status_is '.counters.held > 0' true
echo "ok: the first request is held"
for number in "${REAL_SERVERS[@]}"; do
    ip -n director link set "rs$number-back" up
done
wait "$request"
lab_expect "the first request is answered" "$(sed 's/[123]$//' "$LAB_DIR/first")" rs
for number in "${REAL_SERVERS[@]}"; do
    lab_wait 20 "rs$number to be up" state_is "rs$number" up
done
lab_wait 5 "nothing to be held any more" lab_status_is .counters.held 0
lab_expect "requests" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"

# One falls silent.
ip -n director link set rs2-back down
lab_wait 90 "rs2 to be seen as down" state_is rs2 down
lab_expect "requests without rs2" "$(lab_requests 40 | lab_tally)" "30 rs1, 10 rs3"
lab_vipr status

# It comes back, with another card: its MAC is another.
ip -n rs2 link set back down
ip -n rs2 link set back address 52:54:00:00:00:99
ip -n rs2 link set back up
ip -n director link set rs2-back up
lab_wait 60 "rs2 to be seen as up again" state_is rs2 up
lab_expect "its new MAC" \
    "$(lab_status '.services[0].real_servers[] | select(.name == "rs2") | .mac')" 52:54:00:00:00:99
lab_expect "requests with rs2" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
lab_expect_balance

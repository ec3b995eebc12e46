#!/usr/bin/env bash
# A running router moves from TAPs to cards of its host and back, by nothing but its configuration, and
# serves at once each time. An interface that vanishes is named and found again.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
config=$LAB_DIR/vipr.toml
cp "$(lab_config)" "$config"
lab_direct packet "$LAB_DIR/packet.toml"
lab_vipr_start "$config"

serves() {
    lab_expect "requests $1" "$(lab_requests 6 | lab_tally)" "3 rs1, 2 rs2, 1 rs3"
}
attached() {
    lab_status '[.segments[] | "\(.attach) \(.tap) \(.up)"] | join(", ")'
}

serves "by TAPs"
for round in 1 2; do
    cp "$LAB_DIR/packet.toml" "$config"
    lab_vipr reload >/dev/null
    lab_expect "round $round: attached" "$(attached)" "packet eth-vip true, packet eth-backend true"
    lab_expect "TAPs left" "$(ip -n director tuntap | grep -c vipr || true)" 0
    serves "by cards"
    cp "$(lab_config)" "$config"
    lab_vipr reload >/dev/null
    lab_expect "round $round: attached" "$(attached)" "tap vipr-front true, tap vipr-back true"
    serves "by TAPs again"
done

# One of each.
sed '/^tap = "vipr-front"/,/^bridge/c attach = "packet"\ninterface = "eth-vip"' "$(lab_config)" >"$config"
lab_vipr reload >/dev/null
lab_expect "attached" "$(attached)" "packet eth-vip true, tap vipr-back true"
serves "by a card and a TAP"

# The card goes, the other segment stays; one of the same name comes.
ip -n director link delete eth-vip
lab_wait 5 "the log to say so" lab_says "$LAB_DIR/vipr.log" "segment front: its device eth-vip is gone"
lab_expect "attached" "$(attached)" "packet eth-vip false, tap vipr-back true"
lab_direct packet "$LAB_DIR/packet.toml"
lab_wait 10 "the new card to be found" lab_status_is '.segments[0].up' true
serves "by the new card"
# Down and up again.
ip -n director link set eth-vip down
lab_expect "attached while it is down" "$(attached)" "packet eth-vip false, tap vipr-back true"
ip -n director link set eth-vip up
lab_wait 5 "it to be up" lab_status_is '.segments[0].up' true
serves "after it was down"
lab_expect_balance
lab_vipr_stop

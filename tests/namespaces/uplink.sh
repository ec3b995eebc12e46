#!/usr/bin/env bash
# A card that a segment names as its uplink joins the bridge, by name or by MAC, at the start or by a
# reload, and leaves it at the end.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
# The client's cable ends on the director's host, on no bridge.
ip -n director link set client-front nomaster
mac=$(ip -n director -br link show client-front | awk '{ print $3 }')
master() {
    ip -n director -o link show client-front | sed -n 's/.* master \([^ ]*\).*/\1/p'
}
config=$LAB_DIR/vipr.toml
with_uplink() {
    sed "s/^bridge = \"br-vip\"/&\nuplink = \"$1\"/" "$(lab_config)"
}

for uplink in client-front "$mac"; do
    with_uplink "$uplink" >"$config"
    lab_vipr_start "$config"
    lab_expect "the card's bridge, by $uplink" "$(master)" br-vip
    lab_expect "requests through it" "$(lab_requests 6 | lab_tally)" "3 rs1, 2 rs2, 1 rs3"
    lab_vipr_stop
    lab_expect "the card's bridge afterwards" "$(master)" ""
done

cp "$(lab_config)" "$config"
lab_vipr_start "$config"
lab_expect "without an uplink" "$(lab_arping client front "$VIP")" silence
with_uplink client-front >"$config"
lab_in director "$VIPR" reload >/dev/null
lab_expect "the card's bridge after a reload" "$(master)" br-vip
lab_expect "with an uplink" "$(lab_arping client front "$VIP")" answered
cp "$(lab_config)" "$config"
lab_in director "$VIPR" reload >/dev/null
lab_expect "the card's bridge after another" "$(master)" ""
lab_vipr_stop

# One clear line for a card that is not there, or is none, or belongs to another.
refuses() {
    local status=0 line
    with_uplink "$1" >"$config"
    lab_in director timeout 10 "$VIPR" run -c "$config" >/dev/null 2>"$LAB_DIR/err" || status=$?
    line=$(grep '^vipr: ' "$LAB_DIR/err")
    echo "   $line"
    lab_expect "$1: exit status" "$status" 1
    [[ $line == *"$1"* && $line == *"$2"* ]] || lab_fail "no '$2' in: $line"
}
refuses no-such-card "client-front ($mac)"
refuses 52:54:00:00:99:99 "client-front ($mac)"
refuses br-backend "a bridge"
ip -n director link add br-other up type bridge
ip -n director link set client-front master br-other
refuses client-front "nomaster"
lab_expect "and it stays there" "$(master)" br-other

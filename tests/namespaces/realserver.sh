#!/usr/bin/env bash
# `vipr realserver`: each method makes a real server that serves and hides; twice is as good as once;
# remove leaves what was there before; a step that fails leaves nothing half-made. So for IPv6.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"
# shellcheck source=tests/namespaces/support/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/support/doctor.sh"

lab_up two-segments
# What of the real server may change: addresses, settings, filters.
state() {
    lab_in "$1" bash -c 'ip -o address show | sed "s/valid_lft.*//"; cd /proc/sys/net/ipv4/conf
        cat all/arp_ignore all/arp_announce back/rp_filter
        # Of a filter its rules: arptables leaves its chains behind, empty.
        nft list ruleset 2>/dev/null | grep "[sd]addr" || true; ls /run/*.json 2>/dev/null || true'
}
prepare() {
    ip -n "$1" address delete "$VIP/32" dev lo 2>/dev/null || true
    lab_sysctl "$1" net/ipv4/conf/all/arp_ignore 0
    lab_sysctl "$1" net/ipv4/conf/all/arp_announce 0
}
vipr_rs() {
    lab_in rs1 "$VIPR" realserver "$@" --state /run/rs1.json
}

methods=(sysctl)
# `method NAME COMMAND…`: one more, if this command of its program works here.
method() {
    local why
    if why=$(lab_in rs1 "${@:2}" 2>&1 >/dev/null); then
        methods+=("$1")
    else
        echo "skipped: method $1: ${why//$'\n'/ }"
    fi
}
method nft nft list ruleset
method arptables arptables -L
prepare rs1
lab_vipr_start "$(lab_config)"
for method in "${methods[@]}"; do
    prepare rs1
    before=$(state rs1)
    ask=(--vip "$VIP" --method "$method" --rip 10.0.0.11)
    lab_expect "$method: the VIP before" "$(lab_in rs1 ip -o address show to "$VIP" | wc -l)" 0
    vipr_rs setup "${ask[@]}"
    once=$(state rs1)
    vipr_rs setup "${ask[@]}" >/dev/null
    lab_expect "$method: what a second set-up changes" "$(diff <(echo "$once") <(state rs1) || true)" ""
    lab_expect "$method: it answers for the VIP to the client" "$(lab_arping client front "$VIP" | head -1)" answered
    lab_capture client client front "arp"
    lab_in client ip neigh flush all
    lab_requests 6 | lab_tally >/dev/null
    lab_expect "$method: who answers ARP for the VIP" "$(lab_arp_answerers "$VIP")" "$DIRECTOR_FRONT_MAC"
    lab_capture_stop
    lab_expect "$method: requests" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
    vipr_rs remove "${ask[@]}"
    vipr_rs remove "${ask[@]}" >/dev/null
    lab_expect "$method: what is left after removal" "$(diff <(echo "$before") <(state rs1) || true)" ""
done

# What is printed does the same.
prepare rs1
vipr_rs print --vip "$VIP" --requests-on back >"$LAB_DIR/setup.sh"
lab_in rs1 sh "$LAB_DIR/setup.sh" >/dev/null
lab_expect "requests after the printed commands" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"

# A step that fails: those before it are taken back.
prepare rs1
before=$(state rs1)
status=0
vipr_rs setup --vip "$VIP" --interface nothing 2>"$LAB_DIR/err" || status=$?
lab_expect "a set-up that fails: $(cat "$LAB_DIR/err")" "$status" 1
lab_expect "what it left" "$(diff <(echo "$before") <(state rs1) || true)" ""

# A VIP of IPv6 needs no more than to be there.
lab_vipr_stop
lab_up_ipv6
lab_config_ipv6 >"$CONFIG"
lab_vipr_start "$CONFIG"
ip -n rs1 address delete "$VIP6/128" dev lo
lab_wait 10 "the cards' own addresses" lab_is_silent ip -n rs1 address show tentative
before=$(state rs1)
missing() { sick "$1" "vip: $VIP6 is not on it" "ip address add $VIP6/128 dev lo"; }
serves() {
    lab_expect "$1: where the VIP is" \
        "$(ip -n rs1 -json address show to "$VIP6" | jq -c '[.[] | select(.ifname).ifname]')" '["lo"]'
    healthy "$1"
    lab_expect "$1: requests" "$(VIP="[$VIP6]" lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
}
missing "IPv6, before"
vipr_rs setup --vip "$VIP6"
serves "IPv6, set up"
once=$(state rs1)
vipr_rs setup --vip "$VIP6" >/dev/null
lab_expect "IPv6: what a second set-up changes" "$(diff <(echo "$once") <(state rs1) || true)" ""
vipr_rs remove --vip "$VIP6"
vipr_rs remove --vip "$VIP6" >/dev/null
lab_expect "IPv6: what is left after removal" "$(diff <(echo "$before") <(state rs1) || true)" ""
missing "IPv6, removed"
vipr_rs print --vip "$VIP6" >"$LAB_DIR/setup.sh"
lab_in rs1 sh "$LAB_DIR/setup.sh" >/dev/null
serves "IPv6, as printed"
lab_expect "IPv6, as printed: what is other than set up" \
    "$(diff <(grep -v json <<<"$once") <(state rs1) || true)" ""

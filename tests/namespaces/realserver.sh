#!/usr/bin/env bash
# `vipr realserver`: each method makes a real server that serves and hides; twice is as good as once;
# remove leaves what was there before; a step that fails leaves nothing half-made.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

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
lab_in rs1 nft list ruleset >/dev/null 2>&1 && methods+=(nft)
if lab_in rs1 arptables -L >/dev/null 2>&1; then methods+=(arptables); fi
echo "methods that this machine can be tested with: ${methods[*]}"
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

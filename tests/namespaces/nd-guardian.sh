#!/usr/bin/env bash
# The same as arp-guardian for IPv6: a real server has the VIP on a card, and advertises it. Linux
# does not leak a VIP that is on lo. Even undefended it is the director that clients come to: Linux
# takes the last advertisement that may override, and a kernel's is the sooner. With an argument N:
# N fresh resolutions a row.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"
# shellcheck source=tests/namespaces/support/claims.sh
source "$(dirname "${BASH_SOURCE[0]}")/support/claims.sh"

VIP6=2001:db8:0:1::10
claims_of 6 "$VIP6" "${1:-6}"

# IPv6 on a station's cards, and an address on one of them: `speak NAMESPACE CARD ADDRESS`.
speak() {
    local name
    for name in all default "$2" lo; do
        lab_sysctl "$1" "net/ipv6/conf/$name/accept_dad" 0
        lab_sysctl "$1" "net/ipv6/conf/$name/disable_ipv6" 0
    done
    ip -n "$1" -6 address add "$3" dev "$2" nodad
}

cluster() {
    local number card
    lab_up "$1"
    speak client front 2001:db8:0:1::64/64
    for number in "${REAL_SERVERS[@]}"; do
        speak "rs$number" front "2001:db8:0:1::1$number/64"
        [[ $1 == one-arm ]] || speak "rs$number" back "2001:db8:0:2::1$number/64"
        card=lo
        ((number != 2)) || card=front
        ip -n "rs$number" -6 address add "$VIP6/128" dev "$card" nodad
        lab_exec "rs$number" socat TCP6-LISTEN:80,fork,reuseaddr,ipv6only=1 TCP4:127.0.0.1:80 \
            2>"$LAB_DIR/rs$number/socat" &
    done
    local net=2
    [[ $1 == two-segments ]] || net=1
    sed -e "s|$VIP|$VIP6|" -e "s|^address = \"10.0.0.1\(.\)\"|address = \"2001:db8:0:$net::1\1\"|" \
        -e "s|^address = \"192.0.2.1\(.\)\"|address = \"2001:db8:0:$net::1\1\"|" \
        -e 's|"192.0.2.2/24"|"2001:db8:0:1::2/64"|' -e 's|"10.0.0.1/24"|"2001:db8:0:2::1/64"|' \
        "$(lab_config)" >"$LAB_DIR/base.toml"
    cp "$LAB_DIR/base.toml" "$config"
}

for topology in two-segments one-arm; do
    [[ $topology == two-segments ]] || lab_down
    cluster "$topology"
    lab_vipr_start "$config"
    lab_wait 10 "the leaking real server to be named" named "$(lab_front_mac 2) rs2"
    echo "ok: $topology: rs2 is named, without a request by anybody"
    defend 'defend = "off"'
    row off "$FEW"
    defend 'defend = "announce"'
    row announce "$FEW"
    defend 'defend = "repair"'
    lab_wait 10 "the leaking real server to be named" named "$(lab_front_mac 2) rs2"
    row repair "$COUNT"
    none_stays_wrong repair
    none_fails repair "$((COUNT * 3))"
    ip -n rs3 -6 address add "$VIP6/128" dev front nodad
    lab_wait 40 "both claimants to be named" named "$(lab_front_mac 2) rs2, $(lab_front_mac 3) rs3"
    row "repair, two claim" "$COUNT"
    none_stays_wrong "repair, two claim"
    ((COUNT <= 100)) || echo "$topology: repair, two claim: of $COUNT requests failed $(failures "$COUNT")"
    defend 'arp_guard = true'
    row "arp_guard, two claim" "$COUNT"
    lab_expect "$topology, guarded: ever wrong" "$WRONG_50 $WRONG_1000" "0 0"
    none_fails guarded "$((COUNT * 3))"
    lab_expect "$topology, guarded: it has blocked claims" \
        "$(lab_status '.segments[] | select(.arp_guard) | .arp_guard.active and .arp_guard.blocked > 0')" true
    lab_expect_balance
    lab_vipr_stop
done

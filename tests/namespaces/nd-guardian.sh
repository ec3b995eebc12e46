#!/usr/bin/env bash
# The same as arp-guardian for IPv6: a real server has the VIP on a card, and advertises it. Linux
# does not leak a VIP that is on lo. With an argument N: N fresh resolutions a row.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

COUNT=${1:-6}
# Of those that stay wrong, which takes a second each.
FEW=$((COUNT > 100 ? 20 : 3))
VIP6=2001:db8:0:1::10

defend() {
    local generation
    generation=$(lab_status .generation)
    sed "s|^bridge = \"br-vip\"|&\n$1|" "$LAB_DIR/base.toml" >"$config.new"
    mv "$config.new" "$config"
    lab_wait 10 "the configuration with '$1' to be in force" is_past "$generation"
}

is_past() {
    (($(lab_status .generation) > $1))
}

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

resolutions() {
    # shellcheck disable=SC2016 # for the inner shell
    lab_in client bash -c '
        now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
        right() { [[ $(ip -6 neigh show "$1" dev front) == *"lladdr $2"* ]]; }
        at_50=0 at_1000=0 longest=0
        for ((round = 0; round < $3; round++)); do
            ip -6 neigh flush to "$1" dev front
            start=$(now)
            echo >"/dev/udp/$1/9"
            sleep 0.05
            right "$1" "$2" && continue
            ((++at_50))
            until right "$1" "$2" || (($(now) - start >= 1000)); do sleep 0.02; done
            took=$(($(now) - start))
            ((took <= longest)) || longest=$took
            ((took < 1000)) || ((++at_1000))
        done
        echo "$at_50 $at_1000 $longest $3"' - "$VIP6" "$DIRECTOR_FRONT_MAC" "$1"
}

failures() {
    # shellcheck disable=SC2016 # for the inner shell
    lab_in client bash -c '
        failed=0
        for ((round = 0; round < $2; round++)); do
            ip -6 neigh flush to "$1" dev front
            answer=$(curl -s --max-time 5 "http://[$1]/") || true
            [[ $answer == rs[123] ]] || ((++failed))
        done
        echo "$failed"' - "$VIP6" "$1"
}

# None of so many requests fails: `none_fails WHAT COUNT`. While it is open whom a client believes, its
# connections go to the one who would get them anyway.
none_fails() {
    lab_expect "$TOPOLOGY, $1: of $2 requests failed" "$(failures "$2")" 0
}

# None is wrong after a second.
none_stays_wrong() {
    ((COUNT > 100)) || lab_expect "$TOPOLOGY, $1: wrong after a second" "$WRONG_1000" 0
}

named() {
    lab_status_is '[.conflicts[] | "\(.mac) \(.real_server)"] | join(", ")' "$1"
}

row() {
    local what=$1 count=$2 wrong_50 wrong_1000 longest all
    read -r wrong_50 wrong_1000 longest all < <(resolutions "$count")
    printf '%-12s IPv6 %-23s wrong after 50 ms: %4d of %d, after 1 s: %4d, right after at most %d ms\n' \
        "$TOPOLOGY" "$what" "$wrong_50" "$all" "$wrong_1000" "$longest"
    WRONG_50=$wrong_50 WRONG_1000=$wrong_1000
}

config=$LAB_DIR/vipr.toml
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
    defend 'arp_guard = true'
    row arp_guard "$COUNT"
    lab_expect "$topology, guarded: ever wrong" "$WRONG_50 $WRONG_1000" "0 0"
    lab_expect "$topology, guarded: it has blocked claims" \
        "$(lab_status '.segments[] | select(.arp_guard) | .arp_guard.active and .arp_guard.blocked > 0')" true
    lab_expect_balance
    lab_vipr_stop
done

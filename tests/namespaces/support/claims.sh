# Sourced by arp-guardian.sh and nd-guardian.sh after lab.sh: where clients end up while a real server
# claims the VIP, of either family.
# shellcheck shell=bash
# shellcheck disable=SC2034 # who sources this uses what it sets

# `claims_of FAMILY VIP COUNT`: what the rest is about; `COUNT` fresh resolutions a row.
claims_of() {
    FAMILY=$1 CLAIMED=$2 COUNT=$3
    # Of those that stay wrong, which takes a second each.
    FEW=$((COUNT > 100 ? 20 : 3))
    config=$LAB_DIR/vipr.toml
}

# The base configuration with these lines in the VIP segment, in force.
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

# Fresh resolutions by the client: "wrong after 50 ms, wrong after 1 s, the longest time until one
# was right in ms, of all". A datagram to a port without service makes the client ask.
resolutions() {
    # shellcheck disable=SC2016 # for the inner shell
    lab_in client bash -c '
        now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
        right() { [[ $(ip "$4" neigh show "$1" dev front) == *"lladdr $2"* ]]; }
        at_50=0 at_1000=0 longest=0
        for ((round = 0; round < $3; round++)); do
            ip "$4" neigh flush to "$1" dev front
            start=$(now)
            echo >"/dev/udp/$1/9"
            sleep 0.05
            right "$@" && continue
            ((++at_50))
            until right "$@" || (($(now) - start >= 1000)); do sleep 0.02; done
            took=$(($(now) - start))
            ((took <= longest)) || longest=$took
            ((took < 1000)) || ((++at_1000))
        done
        echo "$at_50 $at_1000 $longest $3"' - "$CLAIMED" "$DIRECTOR_FRONT_MAC" "$1" "-$FAMILY"
}

# Requests, each by a client that has just forgotten who has the VIP; how many failed.
failures() {
    local host=$CLAIMED
    ((FAMILY == 4)) || host="[$CLAIMED]"
    # shellcheck disable=SC2016 # for the inner shell
    lab_in client bash -c '
        failed=0
        for ((round = 0; round < $2; round++)); do
            ip "$4" neigh flush to "$1" dev front
            answer=$(curl -s --max-time 5 "http://$3/") || true
            [[ $answer == rs[123] ]] || ((++failed))
        done
        echo "$failed"' - "$CLAIMED" "$1" "$host" "-$FAMILY"
}

# None of so many requests fails: `none_fails WHAT COUNT`. While it is open whom a client believes, its
# connections go to the one who would get them anyway.
none_fails() {
    lab_expect "$TOPOLOGY, IPv$FAMILY, $1: of $2 requests failed" "$(failures "$2")" 0
}

# None is wrong after a second, with one claimant or several.
none_stays_wrong() {
    lab_expect "$TOPOLOGY, IPv$FAMILY, $1: wrong after a second" "$WRONG_1000" 0
}

# Whether these and no others are named: "MAC REAL_SERVER, …".
named() {
    lab_status_is '[.conflicts[] | "\(.mac) \(.real_server)"] | join(", ")' "$1"
}

# One row of the matrix: what is done about it, how it shows.
row() {
    local what=$1 count=$2 wrong_50 wrong_1000 longest all
    read -r wrong_50 wrong_1000 longest all < <(resolutions "$count")
    printf '%-12s IPv%d %-22s wrong after 50 ms: %4d of %4d, after 1 s: %4d, right after at most %4d ms\n' \
        "$TOPOLOGY" "$FAMILY" "$what" "$wrong_50" "$all" "$wrong_1000" "$longest"
    WRONG_50=$wrong_50 WRONG_1000=$wrong_1000
}

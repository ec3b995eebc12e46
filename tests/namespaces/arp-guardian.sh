#!/usr/bin/env bash
# A real server leaks: it answers ARP for the VIP (arp_ignore 0) and asks in its name
# (arp_announce 0). It is found and named; with `repair` clients end on the router all the same and no
# request fails; with `arp_guard` they never see the leak; it is told when it is over.
# With an argument N: N fresh resolutions a row in place of a few (`make bench-arp`).
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"
# shellcheck source=tests/namespaces/support/claims.sh
source "$(dirname "${BASH_SOURCE[0]}")/support/claims.sh"

claims_of 4 "$VIP" "${1:-6}"

# What `leaks NUMBER ARP_IGNORE ARP_ANNOUNCE` makes of a real server.
leaks() {
    local name
    for name in all front; do
        lab_sysctl "rs$1" net/ipv4/conf/$name/arp_ignore "$2"
        lab_sysctl "rs$1" net/ipv4/conf/$name/arp_announce "$3"
    done
}

for topology in two-segments one-arm; do
    [[ $topology == two-segments ]] || lab_down
    lab_up "$topology"
    cp "$(lab_config)" "$LAB_DIR/base.toml"
    cp "$LAB_DIR/base.toml" "$config"
    leaks 2 0 0
    lab_vipr_start "$config"
    leaker="$(lab_front_mac 2) rs2"
    lab_wait 10 "the leaking real server to be named" named "$leaker"
    echo "ok: $topology: $leaker is named, without a request by anybody"

    defend 'defend = "off"'
    row off "$FEW"
    lab_expect "$topology, off: most resolutions end on the real server" "$((WRONG_1000 * 2 > FEW))" 1
    defend 'defend = "announce"'
    row announce "$FEW"
    defend 'defend = "repair"'
    lab_wait 10 "the leaking real server to be named" named "$leaker"
    row repair "$COUNT"
    none_stays_wrong repair
    none_fails repair "$((COUNT * 3))"
    # Several of them: the right one of a connection that went astray cannot be known.
    leaks 3 0 0
    lab_wait 40 "both leaking real servers to be named" named "$leaker, $(lab_front_mac 3) rs3"
    row "repair, two leak" "$COUNT"
    none_stays_wrong "repair, two leak"
    ((COUNT <= 100)) || echo "$topology: repair, two leak: of $COUNT requests failed $(failures "$COUNT")"

    # Nobody but the router's port claims the VIP: real servers need no filter at all.
    leaks 1 0 0
    defend 'arp_guard = true'
    row "arp_guard, all leak" "$COUNT"
    lab_expect "$topology, guarded: ever wrong" "$WRONG_50 $WRONG_1000" "0 0"
    none_fails guarded "$((COUNT * 3))"
    lab_expect "$topology, guarded: it has blocked claims" \
        "$(lab_status '.segments[] | select(.arp_guard) | .arp_guard.active and .arp_guard.blocked > 0')" true
    # What is no claim is left alone.
    lab_expect "$topology, guarded: a real server's own address" \
        "$(lab_arping client front 192.0.2.12)" answered
    lab_expect "$topology, guarded: the director's own address" \
        "$(lab_arping client front 192.0.2.2)" answered
    lab_expect_balance

    # The table has a name by which one knows it, and goes with the program, however that ends.
    tables() { lab_in director nft list tables; }
    lab_expect "$topology: the table" "$(tables)" "table bridge vipr-arp-guard-vipr-front"
    defend 'arp_guard = false'
    lab_expect "$topology: the table without arp_guard" "$(tables)" ""
    defend 'arp_guard = true'
    kill -KILL "$VIPR_PID"
    wait "$VIPR_PID" || true
    lab_wait 5 "the kernel to remove the table" lab_is_silent tables
    # What a kernel that cannot do that has left is replaced.
    lab_in director nft add table bridge vipr-arp-guard-vipr-front
    lab_in director nft add chain bridge vipr-arp-guard-vipr-front stale
    lab_vipr_start "$config"
    lab_expect "$topology: what was left of the table" \
        "$(lab_in director nft list table bridge vipr-arp-guard-vipr-front | grep -c stale || true)" 0
    lab_vipr_stop
    lab_expect "$topology: tables after the end" "$(tables)" ""
done

# The leak is closed: it is over, and that is said.
leaks 1 1 2
leaks 3 1 2
cp "$LAB_DIR/base.toml" "$config"
lab_vipr_start "$config"
lab_wait 10 "the leaking real server to be named" named "$leaker"
leaks 2 1 2
lab_wait 40 "the claim to be over" named ""
lab_expect "it says so" "$(grep -c 'real server rs2: no longer claims VIP' "$LAB_DIR/vipr.log")" 1

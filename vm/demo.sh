#!/usr/bin/env bash
# The demo: real HTTP through vipr to three real servers, and what each station saw of it.
# Run by `make demo` as `vm/lab.sh run vm/demo.sh two-segments|one-arm`. Fails if the picture is not
# that of direct routing.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

REQUESTS=60
WEIGHTS=(- 3 2 1)
WRONG=0

main() {
    lab_up "${1:-two-segments}"
    title "The cluster ($TOPOLOGY): network namespaces client, director, rs1, rs2, rs3"
    show_topology
    lab_vipr_start "$(lab_config)"
    echo "vipr runs in the director's namespace with $(realpath --relative-to=. "$(lab_config)")."

    lab_capture client client front
    lab_capture front director vipr-front
    [[ $TOPOLOGY == one-arm ]] || lab_capture back director vipr-back

    title "$REQUESTS requests: client# curl http://$VIP/"
    send_requests
    title "Who has the VIP? client# ip neigh show $VIP"
    show_arp
    title "The router's view: director# vipr status"
    lab_vipr status
    lab_capture_stop
    title "Where the frames went"
    show_frames

    echo
    if ((WRONG)); then
        echo "NOT what direct routing should look like; see 'WRONG' above."
        exit 1
    fi
    echo "All as direct routing should be: one MAC for the VIP, the weights obeyed, no reply through vipr."
}

show_topology() {
    if [[ $TOPOLOGY == one-arm ]]; then
        cat <<'PICTURE'

    client ───── br-vip ───── TAP ─ vipr        a request arrives and leaves by the same TAP,
                 │ │ │                          with new MAC addresses
               rs1 rs2 rs3                      replies: straight to the client

PICTURE
    else
        cat <<'PICTURE'

    client ─┬─ br-vip ── TAP ─ vipr ─ TAP ── br-backend ──► rs1 rs2 rs3     requests
            │                                               │   │   │
            └─◄───────────── br-vip ─◄──────────────────────┴───┴───┘       replies

PICTURE
    fi
    printf '    %-10s %-16s %s\n' "client" "$CLIENT_IP" "$CLIENT_MAC" \
        "director" "$VIP (VIP)" "$DIRECTOR_FRONT_MAC"
    local number
    for number in "${REAL_SERVERS[@]}"; do
        printf '    %-10s %-16s %s   weight %s, VIP on lo, hidden from ARP\n' "rs$number" \
            "$(lab_rip "$number")" "$(lab_mac "$number")" "${WEIGHTS[number]}"
    done
    echo
}

# Sends the requests and shows the answers as they come.
send_requests() {
    local answer number count=0 total=0 expected
    local -A answered=()
    while read -r answer; do
        answered[$answer]=$((${answered[$answer]:-0} + 1))
        printf ' %s' "$answer"
        count=$((count + 1))
        ((count % 20)) || echo
    done < <(lab_requests "$REQUESTS")
    ((count % 20 == 0)) || echo
    for number in "${REAL_SERVERS[@]}"; do
        total=$((total + WEIGHTS[number]))
    done
    for number in "${REAL_SERVERS[@]}"; do
        expected=$((REQUESTS * WEIGHTS[number] / total))
        count=${answered[rs$number]:-0}
        printf '    rs%s answered %2d of %d   (weight %d: %d expected)   ' \
            "$number" "$count" "$REQUESTS" "${WEIGHTS[number]}" "$expected"
        verdict "$((count == expected))"
    done
}

show_arp() {
    local found
    lab_in client ip neigh show "$VIP"
    found=$(lab_client_arp "$VIP")
    printf '    the client sends to %s, the director is %s   ' "${found:-nobody}" "$DIRECTOR_FRONT_MAC"
    verdict "$([[ $found == "$DIRECTOR_FRONT_MAC" ]] && echo 1 || echo 0)"

    lab_in client arping -q -c 2 -w 3 -I front "$VIP" || true
    found=$(lab_arp_answerers "$VIP")
    printf '    ARP for the VIP is answered by: %s   ' "${found//$'\n'/ }"
    verdict "$([[ $found == "$DIRECTOR_FRONT_MAC" ]] && echo 1 || echo 0)"
}

# Requests and replies at each place, from what tcpdump recorded there.
show_frames() {
    local web="tcp port 80" requests replies number passed=0 through_client through_front
    through_client=$(lab_count client "$web and dst $VIP")
    replies=$(lab_count client "$web and src $VIP")
    printf '    %-44s %10s %10s\n' "" requests replies
    printf '    %-44s %10d %10d\n' "client's card" "$through_client" "$replies"
    for number in "${REAL_SERVERS[@]}"; do
        printf '    %-44s %10s %10d\n' "  of these straight from rs$number ($(lab_front_mac "$number"))" "" \
            "$(lab_count client "$web and src $VIP and ether src $(lab_front_mac "$number")")"
    done

    through_front=$(lab_count front "$web and dst $VIP and ether dst $DIRECTOR_FRONT_MAC")
    passed=$(lab_count front "$web and src $VIP")
    printf '    %-44s %10d %10d\n' "vipr, in  by the TAP on br-vip" "$through_front" "$passed"
    if [[ $TOPOLOGY == one-arm ]]; then
        requests=$(lab_count front "$web and dst $VIP and ether src $DIRECTOR_FRONT_MAC")
        printf '    %-44s %10d %10d\n' "vipr, out by the TAP on br-vip" "$requests" "$passed"
    else
        requests=$(lab_count back "$web and dst $VIP and ether src $DIRECTOR_BACK_MAC")
        number=$(lab_count back "$web and src $VIP")
        printf '    %-44s %10d %10d\n' "vipr, out by the TAP on br-backend" "$requests" "$number"
        passed=$((passed + number))
    fi
    for number in "${REAL_SERVERS[@]}"; do
        replies=$((replies - $(lab_count client "$web and src $VIP and ether src $(lab_front_mac "$number")")))
    done
    printf '    every request passed vipr   '
    verdict "$((through_client > 0 && through_front == through_client && requests == through_client))"
    printf '    no reply passed vipr        '
    verdict "$((passed == 0))"
    printf '    every reply came from a real server'"'"'s own card   '
    verdict "$((replies == 0))"
}

title() {
    printf '\n== %s\n' "$*"
}

# Ends a line by whether it is as it should be (1) or not (0).
verdict() {
    if (($1)); then
        echo ok
    else
        echo WRONG
        WRONG=1
    fi
}

main "$@"

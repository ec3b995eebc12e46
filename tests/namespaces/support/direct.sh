# Sourced by packet.sh and xdp.sh after lab.sh: the director on cards of its host. HTTP is balanced on two
# segments and on one, frames that local stations leave unfinished arrive whole, and the host goes on
# using its cards.
# shellcheck shell=bash

# `check_direct ATTACH`.
check_direct() {
    ATTACH=$1
    lab_up two-segments
    check_cards eth-backend out "$DIRECTOR_BACK_MAC"
    lab_down
    lab_up one-arm
    check_cards eth-vip in "$DIRECTOR_FRONT_MAC"
}

# `check_cards OUT CAPTURE MAC`: by which card frames leave, which capture has them, and their source.
check_cards() {
    local in=eth-vip out=$1
    lab_direct "$ATTACH" "$LAB_DIR/vipr.toml"
    # The host has the card too, with an address and a service of its own.
    ip -n director address add 192.0.2.3/24 dev eth-vip
    lab_vipr_start "$LAB_DIR/vipr.toml"
    lab_capture client client front
    # At the far ends: what the director takes from a card is not always to be seen there.
    lab_capture in director "$in-end"
    [[ $in == "$out" ]] || lab_capture out director "$out-end"

    lab_expect "answers a real server" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
    lab_expect "the client's MAC for the VIP" "$(lab_client_arp "$VIP")" "$DIRECTOR_FRONT_MAC"
    lab_expect "pings to the host, answered once each" \
        "$(lab_in client ping -c 3 -i 0.2 -W 2 192.0.2.3 | grep -oE '[0-9]+ received.*loss|DUP')" \
        "3 received, 0% packet loss"
    lab_capture_stop
    lab_expect "who answers ARP for the VIP" "$(lab_arp_answerers "$VIP")" "$DIRECTOR_FRONT_MAC"
    lab_expect "packets from the VIP at the director's host" "$(lab_count in "ip src $VIP")" 0
    # Sorted: frames come to a card from two processors, and not to both captures in the same order.
    lab_expect "packets that vipr changed, added or lost" \
        "$(diff <(lab_packets in "ip dst $VIP and ether dst $DIRECTOR_FRONT_MAC" | sort) \
            <(lab_packets "$2" "ip dst $VIP and ether src $3" | sort) || true)" ""
    lab_expect "the host's frames that vipr saw" \
        "$(lab_status '.counters.drops | .foreign_mac + .own_frame')" 0

    # Bulk both ways: super-frames from the client, and to it by the real servers' own way.
    head -c 32M /dev/urandom >"$LAB_DIR/upload"
    lab_in client curl -sS --max-time 30 -T "$LAB_DIR/upload" "http://$VIP/upload/copy"
    lab_expect "the upload" "$(sha256sum "$LAB_DIR"/rs?/www/upload/copy | cut -d' ' -f1)" \
        "$(sha256sum <"$LAB_DIR/upload" | cut -d' ' -f1)"
    lab_expect "frames lost for want of room" "$(lab_status '[.segments[].missed_frames] | add')" 0
    lab_expect_balance
    lab_vipr_stop
    lab_expect "the card afterwards" \
        "$(ip -n director -d -json link show eth-vip | jq -c '.[0] | [.promiscuity, .allmulti]')" "[0,0]"
}

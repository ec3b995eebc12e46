#!/usr/bin/env bash
# ARP decides who has the VIP: the router answers for the VIP and for its own address, by unicast,
# probes included, and never for anything else; a real server that leaks is seen.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_capture client client front arp
lab_vipr_start "$(lab_config)"
lab_capture front director vipr-front arp
lab_capture back director vipr-back arp

# From, card, address, and what is to come back.
while read -r namespace card address expected; do
    lab_expect "$namespace asks on $card for $address" \
        "$(lab_arping "$namespace" "$card" "$address")" "$expected"
done <<ROWS
client front $VIP         answered
client front 192.0.2.2    answered
client front 192.0.2.3    silence
client front 192.0.2.9    silence
client front 192.0.2.77   silence
client front 10.0.0.1     silence
client front 10.0.0.11    silence
client front 203.0.113.5  silence
rs1    back  10.0.0.1     answered
rs1    back  192.0.2.2    silence
rs1    back  10.0.0.77    silence
ROWS
lab_expect "who has the VIP" "$(lab_arp_answerers "$VIP")" "$DIRECTOR_FRONT_MAC"
lab_expect "who has the director's own address" "$(lab_arp_answerers 192.0.2.2)" "$DIRECTOR_FRONT_MAC"

# Duplicate address detection asks with sender 0.0.0.0. Exit status 1: somebody has it.
status=0
lab_in client arping -D -q -c 2 -w 3 -I front "$VIP" || status=$?
lab_expect "a probe for the VIP finds its holder" "$status" 1
lab_in client arping -D -q -c 1 -w 1 -I front 192.0.2.77
echo "ok: a probe for a free address finds nobody"

# It makes itself known: five announcements at once, and five more after five seconds.
announcements() {
    (($(lab_count client "arp[14:4] = 0xc000020a and arp[24:4] = 0xc000020a and ether src $DIRECTOR_FRONT_MAC and ether broadcast") >= $1))
}
lab_wait 10 "ten announcements of the VIP" announcements 10
echo "ok: ten announcements of the VIP"

lab_capture_stop
answer="arp[6:2] = 2 and ether src $DIRECTOR_FRONT_MAC"
lab_expect "answers that are neither about the VIP nor the director's own address" \
    "$(lab_count front "$answer and not arp[14:4] = 0xc000020a and not arp[14:4] = 0xc0000202")" 0
lab_expect "answers that are not by unicast to the one who asked" \
    "$(lab_count front "$answer and not ether dst $CLIENT_MAC and not arp[14:4] = arp[24:4]")" 0
lab_expect "answers with another MAC inside than outside" \
    "$(lab_count front "$answer and not (arp[8:4] = 0x02000000 and arp[12:2] = 0x0101)")" 0
lab_expect "ARP that named the VIP on the backend" "$(lab_count back "arp[14:4] = 0xc000020a")" 0

# Negative twin: a real server without the filter answers as well, and it shows.
lab_sysctl rs2 net/ipv4/conf/all/arp_ignore 0
lab_capture client client front arp
lab_arping client front "$VIP" >/dev/null
lab_expect "who has the VIP when rs2 leaks" "$(lab_arp_answerers "$VIP")" \
    "$DIRECTOR_FRONT_MAC"$'\n'"$(lab_front_mac 2)"
lab_capture_stop

# It claims the VIP outright: the claimant is named.
lab_in rs2 arping -q -U -c 1 -w 1 -I front -s "$VIP" "$VIP" || true
lab_wait 5 "the claim to be a conflict" \
    lab_status_is '.conflicts[] | "\(.vip) \(.segment) \(.mac) \(.real_server)"' \
    "$VIP front $(lab_front_mac 2) rs2"
echo "ok: rs2 is named as a claimant of the VIP"

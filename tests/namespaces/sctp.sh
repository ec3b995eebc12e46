#!/usr/bin/env bash
# SCTP: associations of real endpoints through the VIP, each with one real server; their states, and
# what becomes of an INIT that nobody wants.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
# Bound to the VIP: an endpoint that is bound to all addresses names them all in its INIT ACK, and
# its peer then talks to those too.
for number in "${REAL_SERVERS[@]}"; do
    mkdir -p "$LAB_DIR/rs$number/sctp"
    cat >"$LAB_DIR/rs$number/serve" <<SH
#!/bin/sh
read -r line || exit 0
case \$line in
    who) echo rs$number ;;
    take) cat >"$LAB_DIR/rs$number/sctp/taken" ;;
    stay) echo rs$number; cat >/dev/null ;;
esac
SH
    chmod +x "$LAB_DIR/rs$number/serve"
    lab_exec "rs$number" socat "SCTP4-LISTEN:3868,bind=$VIP,fork,reuseaddr" \
        "EXEC:$LAB_DIR/rs$number/serve" >"$LAB_DIR/rs$number/socat.log" 2>&1 &
done
config=$LAB_DIR/vipr.toml
sed 's/^protocol = "tcp"/protocol = "sctp"/; s/^ports = 80$/ports = 3868/; s/"wrr"/"rr"/' \
    "$(lab_config)" >"$config"
lab_vipr_start "$config"

# Its end is the end of the association; SCTP has no half of one.
associate() {
    lab_in client timeout 30 socat -t 10 - "SCTP4-CONNECT:$VIP:3868,bind=$CLIENT_IP${1-}"
}
listening() {
    [[ $(lab_in "$1" cat /proc/net/sctp/eps 2>/dev/null | wc -l) -ge 2 ]]
}
for number in "${REAL_SERVERS[@]}"; do
    lab_wait 10 "the endpoint of rs$number" listening "rs$number" ||
        lab_fail "$(cat "$LAB_DIR/rs$number/socat.log")"
done
lab_capture front director vipr-front
lab_capture back director vipr-back

# Until the real server ends it.
answers=$(for _ in {1..12}; do associate ,shut-none <<<who; done)
lab_expect "associations answered" "$(lab_tally <<<"$answers")" "4 rs1, 4 rs2, 4 rs3"

head -c 300000 /dev/urandom >"$LAB_DIR/upload"
{ echo take && cat "$LAB_DIR/upload"; } | associate
whole() {
    local taken
    for taken in "$LAB_DIR"/rs?/sctp/taken; do
        if [[ -e $taken ]] && cmp -s "$taken" "$LAB_DIR/upload"; then return 0; fi
    done
    return 1
}
lab_wait 10 "300,000 bytes to arrive whole" whole

# An association that stays is established, and counts as active; when it is shut down, not.
mkfifo "$LAB_DIR/fifo"
associate <"$LAB_DIR/fifo" >"$LAB_DIR/stays" &
stays=$!
exec 3>"$LAB_DIR/fifo"
echo stay >&3
lab_wait 10 "an answer" lab_says "$LAB_DIR/stays" rs
states() {
    lab_vipr connections --json | jq -r "[.[] | select(.state == \"$1\")] | length"
}
lab_expect "established associations" "$(states SCTP_ESTABLISHED)" 1
lab_expect "active ones" "$(lab_status '[.services[0].real_servers[].active] | add')" 1
lab_expect "of SCTP" "$(lab_vipr connections --json | jq -r '[.[].protocol] | unique | join(" ")')" sctp
exec 3>&-
wait "$stays"
none_established() { [[ $(states SCTP_ESTABLISHED) == 0 ]]; }
lab_wait 10 "it to be shut down" none_established
lab_expect "active ones afterwards" "$(lab_status '[.services[0].real_servers[].active] | add')" 0
lab_capture_stop

# What is no service's is refused at once, with an ABORT that carries the tag of the INIT.
lab_capture refused client front sctp
said=$(lab_in client timeout 30 socat - "SCTP4-CONNECT:$VIP:9999" <<<who 2>&1 || true)
lab_expect "an INIT to a port without a service" "$(grep -o 'Connection refused' <<<"$said" | head -n 1)" \
    "Connection refused"
lab_capture_stop
lab_expect "ABORTs with the checksum and tag that the client's kernel takes" \
    "$(lab_count refused "src $VIP and ip[32] = 6")" 1

lab_expect "replies of real servers at the router" \
    "$(lab_count front "sctp and src $VIP") + $(lab_count back "sctp and src $VIP")" "0 + 0"
lab_expect "packets that vipr changed, added or lost" \
    "$(diff <(lab_packets front "sctp and dst $VIP") <(lab_packets back "sctp and dst $VIP") || true)" ""
lab_expect_balance

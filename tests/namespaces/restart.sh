#!/usr/bin/env bash
# The router is stopped and started again under load: no established connection is lost. With a
# damaged state file they are, it says so, and new ones are served.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
for number in "${REAL_SERVERS[@]}"; do
    head -c 24M /dev/urandom >"$LAB_DIR/rs$number/www/big"
done
mkdir "$LAB_DIR/state"
state=$LAB_DIR/state/connections
config=$LAB_DIR/vipr.toml
sed "s|^name = \"demo\"|&\nstate = \"$state\"|" "$(lab_config)" >"$config"
lab_vipr_start "$config"

# A download that takes six seconds, over a connection to rs1, the first that is chosen.
download() {
    rm -f "$LAB_DIR/download"
    lab_exec client curl -sS --max-time 30 -o "$LAB_DIR/download" "http://$VIP/slow/big" \
        2>"$LAB_DIR/download.err" &
    download=$!
    lab_wait 5 "the download to begin" test -s "$LAB_DIR/download"
}

# Stops it, does something to its state file, and starts it again.
restart() {
    lab_vipr_stop
    cp "$LAB_DIR/vipr.log" "$LAB_DIR/vipr.log.before"
    "$@"
    lab_vipr_start "$config" any
}

logged() {
    grep -c -e "$1" "$2" || true
}

# The longest time without an answer to a ping, in milliseconds.
longest_gap() {
    awk -F '[][]' '/bytes from/ { if (last && $2 - last > longest) longest = $2 - last; last = $2 }
        END { printf "%d", longest * 1000 }' "$LAB_DIR/ping"
}

active_is_over() {
    (($(lab_status '[.services[0].real_servers[].active] | add') > $1))
}

# What the router itself refuses, told by its MAC.
lab_capture client client front "ether src $DIRECTOR_FRONT_MAC and tcp[tcpflags] & tcp-rst != 0"
download
lab_exec client wrk -t 1 -c 32 -d 8s "http://$VIP/" >"$LAB_DIR/wrk" 2>&1 &
wrk=$!
lab_exec client ping -D -n -i 0.01 -w 7 "$VIP" >"$LAB_DIR/ping" &
ping=$!
lab_wait 5 "the load" active_is_over 32
for round in 1 2 3; do
    restart true
    left=$(sed -n 's/.*left for the next start: connections \([0-9]*\),.*/\1/p' \
        "$LAB_DIR/vipr.log.before")
    lab_expect "round $round: connections are left ($left)" "$((left >= 33))" 1
    lab_expect "round $round: all of them are taken up, and the MACs" \
        "$(logged "taken up after .*: connections $left, .*MACs 3\$" "$LAB_DIR/vipr.log")" 1
    lab_expect "round $round: files left over" "$(ls "$LAB_DIR/state")" ""
    sleep 0.5
done
wait "$download"
lab_expect "the download" "$(sha256sum <"$LAB_DIR/download")" "$(sha256sum <"$LAB_DIR/rs1/www/big")"
wait "$wrk"
cat "$LAB_DIR/wrk"
lab_expect "errors that wrk saw" "$(grep -c -e 'Socket errors' -e 'Non-2xx' "$LAB_DIR/wrk" || true)" 0
lab_capture_stop
lab_expect "connections that the router reset" "$(lab_count client)" 0
wait "$ping" || true
gap=$(longest_gap)
lab_expect "the longest gap was short ($gap ms)" "$((gap > 0 && gap < 2000))" 1
lab_expect_balance

# One bit of the file is wrong: nothing of it is believed, and it is kept.
damage() {
    local last
    last=$(tail -c 1 "$state" | od -An -tu1)
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\x$(printf %x $((last ^ 1)))" |
        dd of="$state" bs=1 seek=$(($(stat -c %s "$state") - 1)) conv=notrunc status=none
}

lab_capture client client front "ether src $DIRECTOR_FRONT_MAC and tcp[tcpflags] & tcp-rst != 0"
download
restart damage
lab_expect "what it says of the damaged file" \
    "$(grep -o 'state .*refused, because .*' "$LAB_DIR/vipr.log")" \
    "state $state: refused, because it is damaged: its checksum is wrong; kept as $state.refused; starting without connections"
lab_expect "the file is kept" "$(ls "$LAB_DIR/state")" connections.refused
status=0
wait "$download" || status=$?
lab_expect "the download's end (curl's status for a reset)" "$status" 56
lab_capture_stop
lab_expect "the router reset it" "$(($(lab_count client) > 0))" 1
lab_expect "new connections are served" "$(lab_requests 6 | lab_tally)" "3 rs1, 2 rs2, 1 rs3"
restart true
lab_expect "the refused file is left alone from then on" "$(logged refused "$LAB_DIR/vipr.log")" 0
lab_vipr_stop
lab_expect "the state of the last stop is beside it" "$(echo "$LAB_DIR"/state/*)" \
    "$state $state.refused"

# A place that cannot be written is told at once, and again at the stop, and harms nothing.
sed -i 's|^state = .*|state = "/run/lab/nowhere/state"|' "$config"
lab_vipr_start "$config"
lab_expect "a warning at the start" "$(logged 'warn .*nowhere.*make its directory' "$LAB_DIR/vipr.log")" 1
status=0
lab_vipr_stop || status=$?
lab_expect "exit status" "$status" 0
lab_expect "an error at the stop" "$(logged 'error .*nowhere.*connections end here' "$LAB_DIR/vipr.log")" 1

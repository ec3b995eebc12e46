#!/usr/bin/env bash
# The configuration changes under load, in every way an editor may save it, and no request notices.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
config=$LAB_DIR/etc/vipr.toml
mkdir "$LAB_DIR/etc"
cp "$(lab_config)" "$config"
lab_vipr_start "$config"

weights_are() {
    lab_status_is '[.services[0].real_servers[] | select(.state != "draining") | .weight] | join(" ")' "$1"
}

# Edits the file by a command, and waits for what it should lead to.
change() {
    local what=$1 weights=$2
    shift 2
    "$@"
    lab_wait 5 "$what to take effect" weights_are "$weights"
    echo "ok: $what took effect"
}

new_file() {
    "$@" "$(lab_config)" >"$LAB_DIR/new.toml"
    mv "$LAB_DIR/new.toml" "$config"
}

overwrite() {
    local text
    text=$(sed "$1" "$(lab_config)")
    printf '%s\n' "$text" >"$config"
}

# New connections all the time, and long ones besides.
(
    while [[ ! -e $LAB_DIR/enough ]]; do
        lab_requests 50 2>&1 || echo "curl failed"
    done
) >"$LAB_DIR/answers" &
load=$!
lab_exec client wrk -t 1 -c 8 -d 6s "http://$VIP/" >"$LAB_DIR/wrk" 2>&1 &
wrk=$!
lab_wait 5 "the load" test -s "$LAB_DIR/answers"

change "an edit in place" "1 2 1" sed -i 's/^weight = 3$/weight = 1/' "$config"
change "a file moved over it" "3 2 5" new_file sed 's/^weight = 1$/weight = 5/'
change "the file rewritten" "3 7 1" overwrite 's/^weight = 2$/weight = 7/'
change "a real server taken out" "3 2" new_file awk -v RS= -v ORS='\n\n' '!/"rs3"/'
change "a real server put back" "3 2 1" new_file cat
touch "$config"
lab_vipr reload
change "equal weights" "1 1 1" new_file sed 's/^weight = .*/weight = 1/'

: >"$LAB_DIR/enough"
wait "$load"
wait "$wrk"
cat "$LAB_DIR/wrk"
lab_expect "answers under load that are not of a real server" \
    "$(grep -cv '^rs[123]$' "$LAB_DIR/answers" || true)" 0
lab_expect "errors that wrk saw" "$(grep -c -e 'Socket errors' -e 'Non-2xx' "$LAB_DIR/wrk" || true)" 0
lab_expect "the last weights rule" "$(lab_requests 30 | lab_tally)" "10 rs1, 10 rs2, 10 rs3"
lab_expect_balance

#!/usr/bin/env bash
# vipr takes away what it made and leaves what it found, whichever signal ends it; what a killed one
# could not take away does not stop the next.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
links() {
    ip -n director -o link show | awk -F ': ' '{ sub(/@.*/, "", $2); print $2 }' | sort
}

before=$(links)
sed 's/"br-backend"/"br-made"/' "$(lab_config)" >"$LAB_DIR/vipr.toml"
for signal in TERM INT; do
    # In the background a shell's children ignore SIGINT, unless they ask for it.
    lab_vipr_start "$LAB_DIR/vipr.toml" any
    lab_expect "interfaces while it runs" "$(links)" \
        "$(printf '%s\n' "$before" br-made vipr-back vipr-front | sort)"
    for tap in vipr-front:br-vip vipr-back:br-made; do
        lab_expect "${tap%:*} is on its bridge, and up" \
            "$(ip -n director -o link show "${tap%:*}" master "${tap#*:}" up | wc -l)" 1
    done
    kill -s "$signal" "$VIPR_PID"
    status=0
    wait "$VIPR_PID" || status=$?
    lab_expect "exit status after SIG$signal" "$status" 0
    lab_expect "interfaces after SIG$signal" "$(links)" "$before"
    lab_expect "control sockets after SIG$signal" "$(find /run -name 'vipr*.sock')" ""
done

lab_vipr_start "$LAB_DIR/vipr.toml" any
kill -KILL "$VIPR_PID"
wait "$VIPR_PID" || true
lab_vipr_start "$(lab_config)"
lab_expect "requests after a start that followed a kill" "$(lab_requests 6 | lab_tally)" \
    "3 rs1, 2 rs2, 1 rs3"
lab_vipr_stop
lab_expect "control sockets at last" "$(find /run -name 'vipr*.sock')" ""

#!/usr/bin/env bash
# How often the router asks the kernel for something to do: never in vain while nothing happens,
# once for a frame that comes alone, hardly ever while frames keep coming.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_vipr_start "$(lab_config)"

# Counts the main thread's system calls while the rest of the arguments run. Leaves the numbers in
# WAITS, READS and WRITES.
counted() {
    local trace=$LAB_DIR/trace tracer
    strace -q -e trace=epoll_wait,epoll_pwait,read,write -o "$trace" -p "$VIPR_PID" &
    tracer=$!
    lab_wait 5 "the tracer" is_traced
    "$@"
    kill -INT "$tracer"
    wait "$tracer" || true
    WAITS=$(grep -c '^epoll' "$trace" || true)
    READS=$(grep -c '^read(.*) = [0-9]' "$trace" || true)
    WRITES=$(grep -c '^write(' "$trace" || true)
    echo "$*: $WAITS waits, $READS reads with a frame, $WRITES writes"
}

is_traced() {
    ! grep -q '^TracerPid:[[:space:]]*0$' "/proc/$VIPR_PID/status"
}

# Whether $1 is at most $2.
at_most() {
    lab_expect "$3: $1, at most $2" "$(($1 <= $2))" 1
}

# Idle: what the clock brings (samples every two seconds, neighbours), and what the bridge floods.
counted sleep 4
at_most "$WAITS" 60 "waits in four idle seconds"

# Alone: each frame ends one wait, and nothing is asked twice.
pings() {
    lab_in client ping -q -c 20 -i 0.05 "$VIP" >/dev/null
}
counted pings
at_most "$WAITS" 100 "waits for 20 frames"
lab_expect "each was answered: $WRITES writes" "$((WRITES >= 20))" 1

# Together: several bursts go by between two waits.
flood() {
    lab_in rs3 ip neigh replace 10.0.0.99 lladdr "$DIRECTOR_BACK_MAC" dev back
    lab_in rs3 timeout 3 socat -u -b 64 /dev/zero UDP-SENDTO:10.0.0.99:9 2>/dev/null || true
}
counted flood
lab_expect "the flood arrived: $READS frames" "$((READS > 2000))" 1
at_most "$((WAITS * 32))" "$READS" "32 x waits, against frames of a flood"

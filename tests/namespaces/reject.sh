#!/usr/bin/env bash
# What belongs to no service is refused at once, so that nobody waits; or, if so configured, not
# answered at all.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
config=$LAB_DIR/vipr.toml
cp "$(lab_config)" "$config"
lab_vipr_start "$config"
lab_capture client client front

# curl's exit status 7: could not connect; 28: time is up.
tcp() {
    local status=0
    lab_in client curl -s --max-time 2 "http://$VIP:81/" || status=$?
    echo "$status"
}

udp() {
    lab_in client bash -c "echo hello | socat -t 1 -T 1 - UDP:$VIP:9 2>&1 | grep -o 'Connection refused'" ||
        echo silence
}

started=$EPOCHREALTIME
lab_expect "TCP to a port without a service" "$(tcp)" 7
lab_expect "and that took less than a second" \
    "$((${EPOCHREALTIME/[.,]/} - ${started/[.,]/} < 1000000))" 1
lab_expect "UDP to a port without a service" "$(udp)" "Connection refused"
lab_expect "a service beside it" "$(lab_requests 1)" rs1
lab_capture_stop
lab_expect "resets from the director, and from elsewhere" \
    "$(lab_count client "ether src $DIRECTOR_FRONT_MAC and src port 81 and tcp[tcpflags] & tcp-rst != 0"), $(
        lab_count client "not ether src $DIRECTOR_FRONT_MAC and src $VIP and tcp[tcpflags] & tcp-rst != 0")" "1, 0"
lab_expect "port unreachable from the director, and from elsewhere" \
    "$(lab_count client "ether src $DIRECTOR_FRONT_MAC and icmp[0] = 3 and icmp[1] = 3"), $(
        lab_count client "not ether src $DIRECTOR_FRONT_MAC and src $VIP and icmp")" "1, 0"

sed -i 's/^name = "demo"$/name = "demo"\nunmatched = "drop"/' "$config"
lab_wait 5 "the reload" lab_status_is .generation 2
dropped=$(lab_status .counters.drops.unmatched)
lab_expect "TCP, with unmatched = \"drop\"" "$(tcp)" 28
lab_expect "UDP, with unmatched = \"drop\"" "$(udp)" silence
lab_expect "and it is counted" "$(($(lab_status .counters.drops.unmatched) >= dropped + 2))" 1
lab_expect "a service beside it still" "$(lab_requests 1 | sed 's/[0-9]//')" rs
lab_expect_balance

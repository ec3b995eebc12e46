#!/usr/bin/env bash
# The configuration changes under load, and nobody notices: what it costs, measured on the wire.
#
#     vm/lab.sh run vm/bench-reload.sh [RELOADS]
#
# Real HTTP over kept and over fresh connections, and a datagram every millisecond, go through vipr
# to three real servers; at first in peace, then while the configuration file is written anew ten
# times a second, in place and by rename in turn: weights change, a fourth real server comes and
# goes, and every tenth file is broken. With 1,000 reloads (the default) a configuration of 1,000
# services with 20 real servers each follows, and how long frames wait is judged too. Fails if
# anything is lost, or not as it was written.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

RELOADS=${1:-1000}
REAL_SERVERS=(1 2 3 4)
# So many of each, with a pause between one's answer and its next request.
KEPT_CONNECTIONS=32
FRESH_CONNECTIONS=16
PAUSE_MS=10
STEADY_PORT=7000
# Between two edits. The router looks 30 ms after the last event, at most 80 ms after the first: so
# far apart, each is a reload of its own. Only where the machine is so busy that the router looks
# late may it find the next one already: so many may be overwritten, and so many caught half written.
EDIT_INTERVAL_US=100000
LATE_MAX=$((3 + RELOADS / 100))
# What a bridge floods, and what hosts on it ask each other, is none of the router's business.
NOT_LOST='["arp_not_ours", "foreign_mac", "group_mac", "ether_type_unsupported"]'
WRONG=0

main() {
    lab_up two-segments
    CONFIG=$LAB_DIR/etc/vipr.toml
    mkdir "$LAB_DIR/etc"
    prepare
    configuration 0
    printf '%s' "$TEXT" >"$CONFIG"
    lab_vipr_start "$CONFIG"

    RSS_BEFORE=$(rss_kib)
    local seconds=$((RELOADS / 10 + 2))
    phase quiet $((seconds < 30 ? seconds : 30)) true
    phase reloads "$seconds" edit
    report_load quiet reloads
    report_reloads
    report_frames
    lab_vipr_stop
    ((RELOADS < 1000)) || large

    if ((WRONG)); then
        echo "NOT as it should be; see 'WRONG' above."
        exit 1
    fi
}

# ---- The load ----------------------------------------------------------------------------------

prepare() {
    local number
    for number in "${REAL_SERVERS[@]}"; do
        lab_exec "rs$number" socat -u "UDP-RECV:$STEADY_PORT" OPEN:/dev/null 2>/dev/null &
    done
    # Fresh connections use up the client's ports.
    lab_sysctl client net/ipv4/ip_local_port_range "1024 65535"
    lab_sysctl client net/ipv4/tcp_tw_reuse 1
    echo "function delay() return $PAUSE_MS end" >"$LAB_DIR/paced.lua"
}

# Runs the load for so many seconds, and a command meanwhile: `phase NAME SECONDS COMMAND…`.
phase() {
    local name=$1 seconds=$2 kept fresh steady
    shift 2
    lab_capture "$name-in" director vipr-front udp dst port "$STEADY_PORT"
    lab_capture "$name-out" director vipr-back udp dst port "$STEADY_PORT"
    retransmissions >"$LAB_DIR/$name.retransmissions"
    lab_exec client wrk -t 1 -c "$KEPT_CONNECTIONS" -d "${seconds}s" -s "$LAB_DIR/paced.lua" \
        "http://$VIP/" >"$LAB_DIR/$name.kept" 2>&1 &
    kept=$!
    lab_exec client wrk -t 1 -c "$FRESH_CONNECTIONS" -d "${seconds}s" -s "$LAB_DIR/paced.lua" \
        -H 'Connection: close' "http://$VIP/" >"$LAB_DIR/$name.fresh" 2>&1 &
    fresh=$!
    steady_datagrams "$seconds" &
    steady=$!
    "$@"
    wait "$kept" "$fresh" "$steady"
    lab_capture_stop
    retransmissions >>"$LAB_DIR/$name.retransmissions"
}

# A datagram every millisecond, all of one flow.
steady_datagrams() {
    # shellcheck disable=SC2016 # for perl
    lab_exec client perl -MSocket -e 'my ($seconds, $vip, $port) = @ARGV;
        socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
        connect($socket, pack_sockaddr_in($port, inet_aton($vip))) or die "connect: $!\n";
        for (my $end = time + $seconds; time < $end;) {
            defined send($socket, "tick", 0) or die "send: $!\n";
            select(undef, undef, undef, 0.00094);
        }' "$1" "$VIP" "$STEADY_PORT"
}

# TCP segments that the client had to send again, since it was made.
retransmissions() {
    # shellcheck disable=SC2016 # for awk
    lab_in client awk '$1 == "Tcp:" { if (n++) print $column; else
        for (column = NF; $column != "RetransSegs"; column--) continue }' /proc/net/snmp
}

# ---- The edits ---------------------------------------------------------------------------------

# Sets TEXT to the configuration number $1; every tenth is broken.
configuration() {
    local edit=$1 number line servers='' scheduler='"wrr"' broken=''
    for number in 1 2 3; do
        printf -v line '[[service.real_server]]\nname = "rs%d"\naddress = "10.0.0.1%d"\nweight = %d\n' \
            "$number" "$number" $((1 + (edit + number) % 7))
        servers+=$line
    done
    if ((edit / 3 % 2)); then
        servers+=$'[[service.real_server]]\nname = "rs4"\naddress = "10.0.0.14"\nweight = 3\n'
    fi
    if ((edit % 10 == 9)); then
        case $((edit / 10 % 4)) in
            0) broken="wieght = 1 # edit $edit" ;;
            1) scheduler="\"rrr\" # edit $edit" ;;
            2) broken=$'[[service.real_server]]\n'"address = \"$VIP\" # edit $edit" ;;
            # As if the file ended too soon.
            3) broken=$'[[service.real_server]]\n'"name = \"edit $edit" ;;
        esac
    fi
    printf -v TEXT '%s\n' '[router]' 'name = "bench"' \
        '[segment.front]' 'role = "vip"' 'tap = "vipr-front"' 'bridge = "br-vip"' \
        "mac = \"$DIRECTOR_FRONT_MAC\"" 'address = ["192.0.2.2/24"]' \
        '[segment.back]' 'role = "backend"' 'tap = "vipr-back"' 'bridge = "br-backend"' \
        "mac = \"$DIRECTOR_BACK_MAC\"" 'address = ["10.0.0.1/8"]' \
        '[[service]]' 'name = "steady"' "vip = \"$VIP\"" 'protocol = "udp"' \
        "ports = $STEADY_PORT" 'scheduler = "rr"' "$servers" \
        '[[service]]' "name = \"web-$edit\"" "vip = \"$VIP\"" 'protocol = "tcp"' 'ports = 80' \
        "scheduler = $scheduler" "$servers$broken"
}

# Writes all the configurations, one every tenth of a second.
edit() {
    local number now due=${EPOCHREALTIME/[.,]/}
    for ((number = 1; number <= RELOADS; number++)); do
        configuration "$number"
        if (((number + number / 10) % 2)); then
            printf '%s' "$TEXT" >"$CONFIG"
        else
            printf '%s' "$TEXT" >"$CONFIG.new"
            mv "$CONFIG.new" "$CONFIG"
        fi
        now=${EPOCHREALTIME/[.,]/}
        due=$((due + EDIT_INTERVAL_US))
        # One that came late does not make the next one early.
        ((due > now + EDIT_INTERVAL_US * 9 / 10)) || due=$((now + EDIT_INTERVAL_US * 9 / 10))
        sleep "$(printf '0.%06d' $((due - now)))"
    done
    # The last one, too, is to be in force.
    sleep 0.5
}

# ---- What came of it ---------------------------------------------------------------------------

# The table of two phases: `report_load NAME NAME`.
report_load() {
    local name
    title "The load"
    printf '    %-44s' ""
    printf '%14s' "$@"
    echo
    for name in "$@"; do
        measure "$name"
    done
    row "requests over kept connections" requests_kept "$@"
    row "requests over fresh connections" requests_fresh "$@"
    row_of_none "requests that failed" failed "$@"
    row_of_none "TCP segments that the client sent again" sent_again "$@"
    row "datagrams" datagrams "$@"
    row_of_none "datagrams lost" lost "$@"
    row "longest gap between datagrams to vipr, ms" gap_in "$@"
    row "longest gap between datagrams from vipr, ms" gap_out "$@"
    row "longest time of a datagram in vipr, ms" longest "$@"
}

declare -A MEASURED

# Takes the figures of a phase from what its programs left.
measure() {
    local name=$1 kind first last count_in count_out values
    MEASURED[$name.failed]=0
    for kind in kept fresh; do
        MEASURED[$name.requests_$kind]=$(sed -n 's/^ *\([0-9]*\) requests in .*/\1/p' "$LAB_DIR/$name.$kind")
        [[ ${MEASURED[$name.requests_$kind]} ]] || lab_fail "wrk: $(cat "$LAB_DIR/$name.$kind")"
        # "Socket errors: connect 0, read 1, write 0, timeout 0", "Non-2xx or 3xx responses: 1".
        values=$(sed -n 's/^ *Socket errors: //p; s/^ *Non-2xx or 3xx responses: /x /p' "$LAB_DIR/$name.$kind" |
            awk -F '[ ,]+' '{ for (i = 2; i <= NF; i += 2) sum += $i } END { print sum + 0 }')
        MEASURED[$name.failed]=$((MEASURED[$name.failed] + values))
    done
    { read -r first && read -r last; } <"$LAB_DIR/$name.retransmissions"
    MEASURED[$name.sent_again]=$((last - first))

    for kind in in out; do
        tcpdump -r "$LAB_DIR/$name-$kind.pcap" -n -tt -Z root 2>/dev/null | awk '{ print $1 }' >"$LAB_DIR/$name-$kind.times"
        MEASURED[$name.gap_$kind]=$(awk 'NR > 1 && $1 - before > most { most = $1 - before } { before = $1 }
            END { printf "%.2f", most * 1000 }' "$LAB_DIR/$name-$kind.times")
    done
    count_in=$(wc -l <"$LAB_DIR/$name-in.times")
    count_out=$(wc -l <"$LAB_DIR/$name-out.times")
    MEASURED[$name.datagrams]=$count_in
    MEASURED[$name.lost]=$((count_in - count_out))
    # They keep their order: the same line is the same datagram, if none was lost.
    MEASURED[$name.longest]=$(paste "$LAB_DIR/$name-in.times" "$LAB_DIR/$name-out.times" |
        awk '$2 - $1 > most { most = $2 - $1 } END { printf "%.2f", most * 1000 }')
}

# A line of the table: `row WHAT FIGURE NAME…`.
row() {
    local what=$1 figure=$2 name
    shift 2
    printf '    %-44s' "$what"
    for name in "$@"; do
        printf '%14s' "${MEASURED[$name.$figure]}"
    done
    echo
}

# The same, of what there must be none.
row_of_none() {
    local name sum=0
    for name in "${@:3}"; do
        sum=$((sum + MEASURED[$name.$2]))
    done
    printf '%s   ' "$(row "$@")"
    verdict $((sum == 0))
}

report_reloads() {
    local log=$LAB_DIR/vipr.log good broken taken refused overwritten torn in_a_row number
    # Which ones were taken, and which were refused, by their numbers in the log.
    sed -n 's/.*: name web-[0-9]* → web-\([0-9]*\)$/\1/p' "$log" >"$LAB_DIR/taken"
    sed -n 's/.*# edit \([0-9]*\).*/\1/p; s/.*"edit \([0-9]*\)$/\1/p' "$log" | uniq >"$LAB_DIR/refused"
    sort -n "$LAB_DIR/taken" "$LAB_DIR/refused" >"$LAB_DIR/seen"
    in_a_row=$(awk '$1 > before + 2 { print before + 1 } { before = $1 }' "$LAB_DIR/seen" | wc -l)
    broken=$((RELOADS / 10))
    good=$((RELOADS - broken))
    taken=$(wc -l <"$LAB_DIR/taken")
    refused=$(wc -l <"$LAB_DIR/refused")
    overwritten=$((RELOADS - taken - refused))
    torn=$(($(grep -c 'refused, the running one stays in force' "$log") - refused))

    title "The reloads: $RELOADS edits, 10 a second"
    printf '    good ones taken up                        %5d of %d\n' "$taken" "$good"
    printf '    broken ones refused                       %5d of %d\n' "$refused" "$broken"
    printf '    overwritten before the router looked      %5d (at most %d)   ' "$overwritten" "$LATE_MAX"
    verdict $((overwritten <= LATE_MAX && in_a_row == 0))
    printf '    caught half written, refused until whole  %5d (at most %d)   ' "$torn" "$LATE_MAX"
    verdict $((torn <= LATE_MAX))
    printf '    in the order they were written            '
    verdict "$(sort -nc "$LAB_DIR/taken" 2>/dev/null && echo 1 || echo 0)"
    printf '    the last one is in force, each counted once   '
    verdict "$(lab_status_is '[.generation, .configuration.failures, .configuration.error, .services[1].name]
        | join(" ")' "$((1 + taken)) $((refused + torn))  web-$RELOADS" && echo 1 || echo 0)"
    report_pauses "$(pauses)" "$(lab_status .configuration.reloads.pauses_over_1_ms)"
}

# How long frames waited for each reload, in microseconds, by the log.
pauses() {
    sed -n 's/.* is in force after a pause of \([0-9]*\) µs$/\1/p' "$LAB_DIR/vipr.log"
}

# One in a thousand may take longer than a millisecond: another program may have the processor.
# With few reloads, as in a test beside others, that would say nothing.
report_pauses() {
    sort -n <<<"$1" | awk -v over="$2" '{ pause[NR] = $1 } END {
        printf "    frames waited, µs                         %5d median, %d p99, %d at most\n",
            pause[int((NR + 1) / 2)], pause[int(NR * 0.99 + 0.999)], pause[NR]
        printf "    of them at most 1 ms                      %5d of %d   ", NR - over, NR }'
    if ((RELOADS < 1000)); then
        echo "(not judged)"
    else
        verdict $(($2 * 1000 <= RELOADS))
    fi
}

report_frames() {
    title "The frames"
    lab_status '.counters | "    received \(.received) = forwarded \(.forwarded) + replied \(.replied) + consumed \(.consumed) + held \(.held) + dropped \(.dropped)"'
    printf '    accounted for   '
    verdict "$(lab_status_is '.counters | .received == .forwarded + .replied + .consumed + .held + .dropped' true && echo 1 || echo 0)"
    lab_status '.counters.drops | to_entries[] | select(.value > 0) | "    dropped: \(.key) \(.value)"'
    printf '    dropped for a reason that means a loss   '
    verdict "$(lab_status_is ".counters.drops | with_entries(select(.value > 0)) | keys - $NOT_LOST" "[]" && echo 1 || echo 0)"
    printf '    not taken by a device                    '
    verdict "$(lab_status_is '[.segments[].send_errors] | add' 0 && echo 1 || echo 0)"
    printf '    not fetched from a device in time        '
    verdict "$(($(tap_drops vipr-front) + $(tap_drops vipr-back) == 0))"
    printf '    resident memory, KiB   %d before, %d after\n' "$RSS_BEFORE" "$(rss_kib)"
}

# Frames that a TAP had no room to keep for the router.
tap_drops() {
    ip -n director -s -j link show "$1" | jq '.[0].stats64.tx.dropped'
}

# ---- A large configuration ---------------------------------------------------------------------

LARGE_SERVICES=1000
LARGE_REAL_SERVERS=20
ROUNDS=5

# 1,000 services with 20 real servers each come, change and go, under the same load.
large() {
    CONFIG=$LAB_DIR/etc/large.toml
    configuration 0
    SMALL=$TEXT
    large_configuration plain 1 1 "$LARGE_REAL_SERVERS"
    large_configuration one_weight 1 9 "$LARGE_REAL_SERVERS"
    large_configuration every_weight 2 2 "$LARGE_REAL_SERVERS"
    large_configuration one_less_in_each 1 1 $((LARGE_REAL_SERVERS - 1))
    printf '%s' "$SMALL" >"$CONFIG"
    lab_vipr_start "$CONFIG"
    RSS_BEFORE=$(rss_kib)
    phase large 30 large_edits

    title "$LARGE_SERVICES services x $LARGE_REAL_SERVERS real servers ($(du -k "$LAB_DIR/plain.toml" | cut -f 1) KiB of TOML)"
    printf '    %-36s %20s %20s\n' "" "from edit to force" "frames waited"
    large_row "all of them come" come
    large_row "one weight" one_weight
    large_row "every weight" every_weight
    large_row "one real server less in each" one_less_in_each
    large_row "one real server more in each" plain
    large_row "all of them go" go
    printf '    resident memory, KiB   %d small, %d large, %d after all, %d at most\n' \
        "$RSS_BEFORE" "$RSS_LARGE" "$(rss_kib)" "$(awk '$1 == "VmHWM:" { print $2 }' "/proc/$VIPR_PID/status")"
    report_load large
    lab_vipr_stop
}

# Writes one: `large_configuration NAME WEIGHT FIRST_WEIGHT REAL_SERVERS`. Their addresses are on
# machines that are there.
large_configuration() {
    {
        printf '%s' "$SMALL"
        awk -v services="$LARGE_SERVICES" -v weight="$2" -v first="$3" -v count="$4" 'BEGIN {
            for (service = 0; service < services; service++) {
                place = int(service / 250) "." service % 250 + 1
                printf "[[service]]\nname = \"s%d\"\nvip = \"198.18.%s\"\nprotocol = \"tcp\"\nports = 80\nscheduler = \"wrr\"\n", service, place
                for (server = 1; server <= count; server++)
                    printf "[[service.real_server]]\nname = \"r%d\"\naddress = \"10.%d.%d.%d\"\nmac = \"52:54:00:00:00:1%d\"\nsegment = \"back\"\nweight = %d\n",
                        server, int(service / 250) + 1, service % 250, server, server % 3 + 1,
                        service + server == 1 ? first : weight
            }
        }'
    } >"$LAB_DIR/$1.toml"
}

large_edits() {
    local round name
    GENERATION=1
    large_edit come "$LAB_DIR/plain.toml"
    sleep 1
    RSS_LARGE=$(rss_kib)
    for ((round = 0; round < ROUNDS; round++)); do
        for name in one_weight every_weight one_less_in_each plain; do
            large_edit "$name" "$LAB_DIR/$name.toml"
        done
    done
    printf '%s' "$SMALL" >"$LAB_DIR/small.toml"
    large_edit go "$LAB_DIR/small.toml"
}

# Puts a file in the place of the configuration, waits until it is in force, and notes how long
# that took (ms) and how long frames waited (µs), as `name.edits` has them.
large_edit() {
    local name=$1 start line at pause
    cp "$2" "$CONFIG.new"
    GENERATION=$((GENERATION + 1))
    start=${EPOCHREALTIME/[.,]/}
    mv "$CONFIG.new" "$CONFIG"
    lab_wait 10 "generation $GENERATION" lab_says "$LAB_DIR/vipr.log" "generation $GENERATION is in force" ||
        lab_fail "the edit '$name' was not taken"
    line=$(grep -F "generation $GENERATION is in force" "$LAB_DIR/vipr.log")
    at=$(date -d "${line%% *}" +%s%3N)
    pause=${line% µs*}
    echo "$((at - start / 1000)) ${pause##* }" >>"$LAB_DIR/$name.edits"
}

# The medians of what was noted.
large_row() {
    local took waited most
    took=$(cut -d ' ' -f 1 "$LAB_DIR/$2.edits" | median)
    waited=$(cut -d ' ' -f 2 "$LAB_DIR/$2.edits" | median)
    most=$(cut -d ' ' -f 2 "$LAB_DIR/$2.edits" | sort -n | tail -n 1)
    printf '    %-36s %17d ms %17d µs   (at most %d µs)\n' "$1" "$took" "$waited" "$most"
}

median() {
    sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}

rss_kib() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/$VIPR_PID/status"
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

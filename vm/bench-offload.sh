#!/usr/bin/env bash
# What offload is worth: one bulk TCP upload through vipr to a real server, on plain TAPs, on TAPs with
# offload, and on cards of the host; taken in turns. Throughput, and vipr's processor time a byte.
# Run it with `vm/lab.sh run vm/bench-offload.sh [ROUNDS [SECONDS]]`.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

ROUNDS=${1:-5}
SECONDS_EACH=${2:-3}
PORT=5001
WAYS=(plain offload packet xdp)

lab_up two-segments
lab_exec rs1 socat -u -b 262144 "TCP-LISTEN:$PORT,fork,reuseaddr" /dev/null,ignoreeof &
for way in "${WAYS[@]}"; do
    case $way in
        plain) sed 's/^tap = .*/&\noffload = "off"/' "$(lab_config)" ;;
        offload) cat "$(lab_config)" ;;
        *)
            lab_direct "$way" "$LAB_DIR/direct.toml"
            cat "$LAB_DIR/direct.toml"
            ;;
    esac | sed "s/^ports = 80/ports = [80, $PORT]/; s/^weight = [12]\$/weight = 0/" >"$LAB_DIR/$way.toml"
done
cp "$LAB_DIR/plain.toml" "$LAB_DIR/vipr.toml"
lab_vipr_start "$LAB_DIR/vipr.toml"

# Processor time that vipr has used, in ticks.
ticks() {
    awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$VIPR_PID/stat"
}

# Bytes that have come to the real server.
received() {
    lab_in rs1 cat /proc/net/dev | awk '$1 == "back:" { print $2 }'
}

turn() {
    local way=$1 before ticks_before end bytes cpu
    cp "$LAB_DIR/$way.toml" "$LAB_DIR/vipr.toml"
    lab_vipr reload >/dev/null
    sleep 0.3
    before=$(received) ticks_before=$(ticks)
    end=$(date +%s%N)
    lab_in client timeout "$SECONDS_EACH" socat -u -b 262144 OPEN:/dev/zero "TCP:$VIP:$PORT" || true
    end=$(($(date +%s%N) - end))
    bytes=$(($(received) - before))
    cpu=$(($(ticks) - ticks_before))
    echo "$way $bytes $end $cpu"
}

for _ in $(seq "$ROUNDS"); do
    for way in "${WAYS[@]}"; do
        turn "$way"
    done
done | awk -v hz="$(getconf CLK_TCK)" '
    function median(way, what,    list, n, i, j, t) {
        n = count[way]
        for (i = 1; i <= n; i++) list[i] = value[way, what, i]
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && list[j - 1] > list[j]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
        return list[int((n + 1) / 2)]
    }
    {
        n = ++count[$1]
        value[$1, "gbit", n] = $2 * 8 / $3
        value[$1, "cpu", n] = $4 / hz * 1e9 / $2
    }
    END {
        print "| bulk TCP, one stream | Gbit/s | ns of vipr a byte | throughput, of plain TAP | less CPU a byte |"
        print "|---|---:|---:|---:|---:|"
        split("plain offload packet xdp", ways)
        for (i = 1; i <= 4; i++) {
            way = ways[i]
            printf "| %s | %.2f | %.3f | %.1f × | %.1f × |\n", way, median(way, "gbit"), median(way, "cpu"),
                median(way, "gbit") / median("plain", "gbit"), median("plain", "cpu") / median(way, "cpu")
        }
    }'

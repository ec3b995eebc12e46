#!/usr/bin/env bash
# What vipr says of itself agrees with what the real servers logged: status, its JSON, the
# connection table and the metrics.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
config=$LAB_DIR/vipr.toml
sed 's/^name = "demo"$/&\nmetrics = "127.0.0.1:9469"/' "$(lab_config)" >"$config"
lab_vipr_start "$config"
lab_capture back director vipr-back "tcp and dst $VIP"
lab_requests 60 >/dev/null
lab_capture_stop

logged=$(for number in "${REAL_SERVERS[@]}"; do
    grep -c "^$CLIENT_IP .* 200 " "$LAB_DIR/rs$number/access.log"
done)
lab_expect "requests in the real servers' logs" "$logged" $'30\n20\n10'
lab_expect "connections in status --json" \
    "$(lab_status '.services[0].real_servers[].connections')" "$logged"
lab_expect "packets in status --json" "$(lab_status '.services[0].real_servers[].packets')" \
    "$(for number in "${REAL_SERVERS[@]}"; do lab_count back "ether dst $(lab_back_mac "$number")"; done)"
lab_expect "connections in connections --json" \
    "$(lab_vipr connections --json | jq -r '.[].real_server' | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
lab_expect "lines of connections" "$(lab_vipr connections | grep -c "^TCP .* $CLIENT_IP:.* $VIP:80 ")" 60
lab_expect "active plus inactive connections in status" \
    "$(lab_vipr status | awk '$1 == "->" && $3 == "Route" { print $5 + $6 }')" "$logged"

metric() {
    lab_in director curl -sS --max-time 5 http://127.0.0.1:9469/metrics | awk -v name="$1" '$1 == name { print $2 }'
}
lab_expect "the router's frames in the metrics" "$(metric vipr_frames_forwarded_total)" \
    "$(lab_status .counters.forwarded)"
lab_expect "connections in the metrics" "$(metric vipr_connections)" 60

lab_expect "services in the summary of check" "$(lab_vipr check "$config" | grep -c '^web ')" 1
lab_expect_balance

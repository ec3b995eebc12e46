#!/usr/bin/env bash
# UDP: real DNS queries by the C library's resolver to dnsmasq on the real servers.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
for number in "${REAL_SERVERS[@]}"; do
    lab_exec "rs$number" dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --group=root \
        --no-resolv --no-hosts --pid-file --port=53 --log-facility=- \
        --address="/who.lab.test/10.0.0.1$number" >"$LAB_DIR/rs$number/dnsmasq.log" 2>&1 &
done
cat >"$LAB_DIR/vipr.toml" <<TOML
$(sed 's/^\[\[service\]\]$/&\nname = "dns"/; s/^name = "web"$//; s/"tcp"/"udp"/; s/^ports = 80$/ports = 53/; s/"wrr"/"rr"/' "$(lab_config)")
TOML
lab_vipr_start "$LAB_DIR/vipr.toml"

printf 'nameserver %s\noptions timeout:2 attempts:1\n' "$VIP" >"$LAB_DIR/resolv.conf"
lab_mount "$LAB_DIR/resolv.conf" /etc/resolv.conf
for number in "${REAL_SERVERS[@]}"; do
    # A server is there when it answers at its own address.
    lab_wait 10 "dnsmasq of rs$number" lab_in "rs$number" bash -c ': >/dev/udp/127.0.0.1/53'
done
lab_capture front director vipr-front udp
lab_capture back director vipr-back udp

# Each query is by a new process from a random port: a connection each, bar an accident.
answers=$(for _ in {1..30}; do lab_in client getent ahostsv4 who.lab.test | awk 'NR == 1 { print $1 }'; done)
lab_expect "queries answered" "$(wc -l <<<"$answers")" 30
for number in "${REAL_SERVERS[@]}"; do
    count=$(grep -c "^10.0.0.1$number$" <<<"$answers" || true)
    lab_expect "rs$number answered $count of 30, about a third" "$((count >= 8 && count <= 12))" 1
done
lab_capture_stop
lab_expect "replies at the router" \
    "$(lab_count front "src $VIP") + $(lab_count back "src $VIP")" "0 + 0"
lab_expect "packets that vipr changed, added or lost" \
    "$(diff <(lab_packets front "dst $VIP") <(lab_packets back "dst $VIP") || true)" ""
lab_expect "connections are UDP" \
    "$(lab_vipr connections --json | jq -r '[.[].protocol] | unique | join(" ")')" udp

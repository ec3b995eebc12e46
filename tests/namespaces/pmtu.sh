#!/usr/bin/env bash
# A download through a path with a smaller MTU: what the router on the way says to the VIP reaches the
# real server that sends, in both families, and the download arrives.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_up_ipv6
lab_far_client
head -c 2M /dev/urandom >"$LAB_DIR/rs1/www/download"
for number in 2 3; do cp "$LAB_DIR/rs1/www/download" "$LAB_DIR/rs$number/www/"; done
{
    lab_config_ipv6
    sed -n '/^\[\[service\]\]/,$p' "$(lab_config)" | sed 's/^name = "web"/name = "web4"/'
} >"$LAB_DIR/vipr.toml"
lab_vipr_start "$LAB_DIR/vipr.toml"
lab_capture back director vipr-back "icmp or icmp6"
for host in "$VIP" "[$VIP6]"; do
    lab_expect "six downloads from $host" \
        "$(for _ in {1..6}; do lab_in far curl -sS --max-time 20 "http://$host/download" | sha256sum; done | sort -u)" \
        "$(sha256sum <"$LAB_DIR/rs1/www/download")"
done
lab_capture_stop
lab_expect "fragmentation needed, to real servers" \
    "$(($(lab_count back "icmp and dst $VIP and icmp[0] = 3 and icmp[1] = 4 and icmp[6:2] = 1400") >= 3))" 1
lab_expect "packet too big, to real servers" \
    "$(($(lab_count back "icmp6 and ip6 dst $VIP6 and ip6[40] = 2") >= 3))" 1
for number in "${REAL_SERVERS[@]}"; do
    lab_expect "what rs$number has learnt" \
        "$(lab_in "rs$number" ip route get 198.51.100.7 from "$VIP" | grep -o 'mtu [0-9]*'), $(
            lab_in "rs$number" ip -6 route get 2001:db8:c::7 from "$VIP6" | grep -o 'mtu [0-9]*')" "mtu 1400, mtu 1400"
done
lab_expect_balance

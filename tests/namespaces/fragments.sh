#!/usr/bin/env bash
# Datagrams larger than the MTU, in both families: their fragments reach one real server, which
# answers with what it makes of the whole. Onto a segment that carries less, the router cuts those of
# IPv4 again and tells the sender of those of IPv6.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_up_ipv6
for number in "${REAL_SERVERS[@]}"; do
    lab_exec "rs$number" socat -b 65507 "UDP4-RECVFROM:9000,bind=$VIP,fork" EXEC:sha256sum 2>"$LAB_DIR/rs$number/udp4" &
    lab_exec "rs$number" socat -b 65507 "UDP6-RECVFROM:9000,bind=[$VIP6],fork" EXEC:sha256sum 2>"$LAB_DIR/rs$number/udp6" &
done
{
    sed -n '1,/^\[\[service\]\]/p' <(lab_config_ipv6) | sed '$d'
    for vip in "$VIP" "$VIP6"; do
        printf '[[service]]\nvip = "%s"\nprotocol = "udp"\nports = 9000\nscheduler = "rr"\n' "$vip"
        sed -n '/^\[\[service.real_server\]\]/,$p' <(lab_config_ipv6) | sed '/^# /d'
    done
} >"$LAB_DIR/vipr.toml"
lab_vipr_start "$LAB_DIR/vipr.toml"

# What a real server makes of a datagram of so many bytes: `summed FAMILY ADDRESS BYTES`.
summed() {
    head -c "$3" "$LAB_DIR/data" | lab_in client socat -b 65507 -t 3 -T 3 STDIO "UDP$1:$2:9000"
}

head -c 60000 /dev/urandom >"$LAB_DIR/data"
lab_capture back director vipr-back
for bytes in 100 1473 4000 30000 60000; do
    expected=$(head -c "$bytes" "$LAB_DIR/data" | sha256sum)
    lab_expect "$bytes bytes by IPv4" "$(summed 4 "$VIP" "$bytes")" "$expected"
    lab_expect "$bytes bytes by IPv6" "$(summed 6 "[$VIP6]" "$bytes")" "$expected"
done
lab_capture_stop
lab_expect "fragments were many" "$(($(lab_count back "ip[6:2] & 0x3fff != 0") > 40))" 1

# Less on the backend. The first of IPv6 is lost, and its sender knows better then.
sed -i 's/^tap = "vipr-back"$/&\nmtu = 1400/' "$LAB_DIR/vipr.toml"
lab_vipr reload
lab_wait 10 "the smaller MTU" lab_status_is '.segments[] | select(.name == "back") | .mtu' 1400
lab_capture less director vipr-back "dst $VIP or dst $VIP6"
summed 6 "[$VIP6]" 4000 >/dev/null || true
for bytes in 1450 4000 30000; do
    expected=$(head -c "$bytes" "$LAB_DIR/data" | sha256sum)
    # 0: the kernel may fragment, and does not ask that nobody else does.
    lab_expect "$bytes bytes by IPv4 over less" \
        "$(head -c "$bytes" "$LAB_DIR/data" | lab_in client socat -b 65507 -t 3 -T 3 STDIO "UDP4:$VIP:9000,mtudiscover=0")" "$expected"
    lab_expect "$bytes bytes by IPv6 over less" "$(summed 6 "[$VIP6]" "$bytes")" "$expected"
done
lab_capture_stop
lab_expect "packets over 1400 bytes on the backend" \
    "$(lab_count less "ip[2:2] > 1400") + $(lab_count less "ip6[4:2] > 1360")" "0 + 0"
lab_expect "what the client has learnt" \
    "$(lab_in client ip -6 route get "$VIP6" | grep -o 'mtu [0-9]*')" "mtu 1400"
lab_expect "fragments dropped" "$(lab_status '.counters.drops.fragment_unknown // 0')" 0
lab_expect_balance

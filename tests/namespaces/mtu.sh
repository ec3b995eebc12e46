#!/usr/bin/env bash
# A backend segment with a smaller MTU: the client is told by ICMP, in the VIP's name, and its
# upload arrives whole. Super-frames are judged by their segments.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
config=$LAB_DIR/vipr.toml
sed 's/^tap = "vipr-back"$/&\nmtu = 1400\noffload = "off"/' "$(lab_config)" >"$config"
head -c 4M /dev/urandom >"$LAB_DIR/upload"
lab_vipr_start "$config"
lab_expect "the MTU of the TAP" "$(ip -n director -j link show vipr-back | jq '.[].mtu')" 1400
lab_expect "the MTU in status" "$(lab_status '.segments[] | select(.name == "back") | .mtu')" 1400

lab_capture client client front "icmp"
lab_capture back director vipr-back "tcp and dst $VIP"
lab_in client curl -sS --max-time 30 -T "$LAB_DIR/upload" "http://$VIP/upload/copy"
lab_capture_stop
lab_expect "the upload" "$(sha256sum <"$LAB_DIR/rs1/www/upload/copy")" "$(sha256sum <"$LAB_DIR/upload")"
lab_expect "packets over 1400 bytes on the backend" "$(lab_count back "ip[2:2] > 1400")" 0
lab_expect "full packets on the backend are many" "$(($(lab_count back "ip[2:2] = 1400") > 1000))" 1
# Type 3, code 4: fragmentation needed; the next hop's MTU is in bytes 6 and 7.
lab_expect "the client was told, by the VIP" \
    "$(($(lab_count client "src $VIP and icmp[0] = 3 and icmp[1] = 4 and icmp[6:2] = 1400") > 0))" 1
lab_expect "what the client has learnt" \
    "$(lab_in client ip route get "$VIP" | grep -o 'mtu [0-9]*')" "mtu 1400"

# The same with offload: the client forgets what it learnt, is told again, and sends super-frames whose
# segments fit.
sed -i '/^offload/d' "$config"
lab_vipr reload >/dev/null
lab_wait 5 "offload to be on" lab_says "$LAB_DIR/vipr.log" "offload: on"
ip -n client route flush cache
lab_capture told client front "icmp"
lab_capture super director vipr-back "tcp and dst $VIP"
lab_in client curl -sS --max-time 30 -T "$LAB_DIR/upload" "http://$VIP/upload/again"
lab_capture_stop
lab_expect "the second upload" "$(sha256sum "$LAB_DIR"/rs?/www/upload/again | cut -d' ' -f1)" \
    "$(sha256sum <"$LAB_DIR/upload" | cut -d' ' -f1)"
lab_expect "super-frames on the backend" "$(($(lab_count super "ip[2:2] > 1400") > 0))" 1
lab_expect "the client was told again" \
    "$(($(lab_count told "src $VIP and icmp[0] = 3 and icmp[1] = 4 and icmp[6:2] = 1400") > 0))" 1
lab_expect "packets counted as on the wire" "$(lab_status \
    '.services[0] | .bytes / .packets < 1400 and .packets > 2 * 4194304 / 1400')" true
lab_expect_balance

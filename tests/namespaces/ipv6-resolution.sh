#!/usr/bin/env bash
# Real servers of IPv6 are found by neighbor solicitation, with an address of the director's own on
# their segment and without one; lost when they fall silent, and found again. A claim of the VIP by
# one of them is named.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
lab_up_ipv6
lab_config_ipv6 | sed 's/, "2001:db8:0:2::1\/64"//' >"$LAB_DIR/vipr.toml"
lab_vipr_start "$LAB_DIR/vipr.toml"
lab_expect "the MAC of rs1, asked from a link-local address" \
    "$(lab_status '.services[0].real_servers[0].mac')" "$(lab_back_mac 1)"
before=$(lab_status '.services[0].real_servers[0].state')
ip -n rs1 link set back down
lab_wait 60 "rs1 to be given up" lab_says "$LAB_DIR/vipr.log" \
    "rs1 (2001:db8:0:2::11): down, silent to 6 "
ip -n rs1 link set back up
ip -n rs1 address add 2001:db8:0:2::11/64 dev back nodad 2>/dev/null || true
lab_wait 60 "rs1 to be found again" lab_status_is '.services[0].real_servers[0].state' "$before"

# A real server that has the VIP on its card there, does not ask whether it may, and says so to all.
for where in all front; do lab_sysctl rs2 "net/ipv6/conf/$where/accept_dad" 0; done
lab_sysctl rs2 net/ipv6/conf/front/ndisc_notify 1
ip -n rs2 address add "$VIP6/64" dev front
lab_wait 10 "the claim to be named" lab_status_is '.conflicts[0].real_server' rs2
lab_expect "by its card there" "$(lab_status '.conflicts[0].mac')" "$(lab_front_mac 2)"
lab_expect_balance

#!/usr/bin/env bash
# Checks and `vipr doctor` over IPv6, on both topologies: what fails for clients fails the check, the
# doctor names it with its remedy, and after the remedy both are content.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"
# shellcheck source=tests/namespaces/support/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/support/doctor.sh"

health() {
    lab_status ".services[0].real_servers[] | select(.name == \"$1\") | .check |
        \"\(.healthy) \(.last.reason)\""
}
health_is() {
    [[ $(health "$1") == "$2" ]]
}
expect_health() {
    lab_wait 15 "$1 to be '$2'" health_is "$@" || lab_fail "$1 is '$(health "$1")'"
    echo "ok: $TOPOLOGY: check of $1: $2"
}

for topology in two-segments one-arm; do
    lab_up "$topology"
    lab_up_ipv6
    for number in "${REAL_SERVERS[@]}"; do
        echo "all is well" >"$LAB_DIR/rs$number/www/health"
    done
    {
        lab_config_ipv6
        cat <<TOML
[service.check]
kind = "http"
path = "/health"
body = "well"
interval = "400ms"
timeout = "300ms"
retries = 0
warmup = "400ms"
TOML
    } >"$CONFIG"
    # Before there is anything to see: what passes while a capture begins would not be counted right.
    lab_capture checks director "${BRIDGES[-1]}" "tcp and ip6 dst $VIP6"
    lab_vipr_start "$CONFIG"
    for number in "${REAL_SERVERS[@]}"; do
        expect_health "rs$number" "true null"
    done
    healthy "a cluster"

    rm "$LAB_DIR/rs2/www/health"
    expect_health rs2 "false HTTP 500"
    echo "all is well" >"$LAB_DIR/rs2/www/health"
    expect_health rs2 "true null"

    ip -n rs1 address delete "$VIP6/128" dev lo
    expect_health rs1 "false no answer"
    sick "no VIP" "vip: $VIP6 is not on it" "ip address add $VIP6/128 dev lo"
    remedy rs1
    expect_health rs1 "true null"
    healthy "no VIP, put right"

    lab_in rs1 ip6tables -A INPUT -d "$VIP6" -p tcp --dport 80 -j DROP
    expect_health rs1 "false no answer"
    sick "a firewall" "service: [$VIP6]:80/tcp does not answer, though $VIP6 is there" "ip6tables -I INPUT"
    remedy rs1
    expect_health rs1 "true null"
    healthy "a firewall, put right"

    lab_capture_stop
    lab_expect "$topology: checks were seen" "$(($(lab_count checks) > 0))" 1
    own=2001:db8:0:2::1
    [[ $topology == two-segments ]] || own=2001:db8:0:1::2
    lab_expect "$topology: checks from any but the director's configured address" \
        "$(lab_count checks "not src $own and not src $CLIENT_IP6 and not src 2001:db8:0:1::2")" 0
    lab_expect_balance
    lab_vipr_stop
    lab_down
done

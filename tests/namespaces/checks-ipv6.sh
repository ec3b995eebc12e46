#!/usr/bin/env bash
# Checks and `vipr doctor` over IPv6, on both topologies: what fails for clients fails the check, the
# doctor names it with its remedy, and after the remedy both are content.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

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
faults() {
    lab_vipr doctor --json >"$LAB_DIR/doctor.json" || true
    jq -r '[.real_servers[] | .real_server as $rs | .findings[] | select(.verdict == "fault") |
        "\($rs): \(.item): \(.text)"] + [.strangers[].text] | join("; ")' "$LAB_DIR/doctor.json"
}
content() {
    lab_expect "$TOPOLOGY: the doctor, $1" "$(faults)" ""
}
# The doctor names one fault of rs1, and its first remedies that are commands are carried out there.
remedied() {
    local found line
    found=$(faults)
    [[ $found == "rs1: $2"* && $found != *";"* ]] || lab_fail "$TOPOLOGY, $1: '$found'"
    while read -r line; do
        echo "   on rs1: $line"
        lab_in rs1 sh -c "$line" >/dev/null
    done < <(jq -r '.real_servers[].findings[] | select(.verdict == "fault") | .remedy[]' \
        "$LAB_DIR/doctor.json" | grep -E '^(ip address add|ip6tables)')
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
    } >"$LAB_DIR/vipr.toml"
    lab_vipr_start "$LAB_DIR/vipr.toml"
    lab_capture checks director "vipr-$(lab_request_card)" "tcp and ip6 dst $VIP6"
    for number in "${REAL_SERVERS[@]}"; do
        expect_health "rs$number" "true null"
    done
    content "of a healthy cluster"

    rm "$LAB_DIR/rs2/www/health"
    expect_health rs2 "false HTTP 500"
    echo "all is well" >"$LAB_DIR/rs2/www/health"
    expect_health rs2 "true null"

    ip -n rs1 address delete "$VIP6/128" dev lo
    expect_health rs1 "false no answer"
    remedied "no VIP" "vip: $VIP6 is not on it"
    expect_health rs1 "true null"
    content "after the remedy"

    lab_in rs1 ip6tables -A INPUT -d "$VIP6" -p tcp --dport 80 -j DROP
    expect_health rs1 "false no answer"
    remedied "a firewall" "service: [$VIP6]:80/tcp does not answer, though $VIP6 is there"
    expect_health rs1 "true null"
    content "after the remedy"

    ip -n rs1 link set "$(lab_request_card)" mtu 1400
    [[ $(faults) == "rs1: mtu: does not take packets of 1500 bytes"* ]] || lab_fail "MTU: $(faults)"
    ip -n rs1 link set "$(lab_request_card)" mtu 1500
    content "with the MTU put right"

    lab_capture_stop
    own=2001:db8:0:2::1
    [[ $topology == two-segments ]] || own=2001:db8:0:1::2
    lab_expect "$topology: checks from any but the director's configured address" \
        "$(lab_count checks "not src $own and not src $CLIENT_IP6 and not src 2001:db8:0:1::2")" 0
    lab_expect_balance
    lab_vipr_stop
    lab_down
done

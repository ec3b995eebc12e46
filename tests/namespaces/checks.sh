#!/usr/bin/env bash
# Health checks against real servers: what fails for clients fails the check, and is named; what
# works for them passes, on two segments and on one.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

health() {
    lab_status ".services[] | select(.name == \"$1\") | .real_servers[] | select(.name == \"$2\") |
        .check | \"\(.healthy) \(.last.reason)\""
}
health_is() {
    [[ $(health "$1" "$2") == "$3" ]]
}
expect_health() {
    lab_wait 15 "$1 on $2 to be '$3'" health_is "$@" || lab_fail "$1 on $2 is '$(health "$1" "$2")'"
    echo "ok: check of $1 on $2: $3"
}
configuration() {
    cat "$(lab_config)"
    cat <<TOML
[service.check]
kind = "http"
path = "/health"
body = "well"
interval = "400ms"
timeout = "300ms"
retries = 0
warmup = "400ms"
fall = 2
rise = 2
TOML
}
set_health() {
    for number in "${REAL_SERVERS[@]}"; do
        echo "all is well" >"$LAB_DIR/rs$number/www/health"
    done
}

lab_up two-segments
set_health
lab_exec rs1 dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --group=root \
    --no-resolv --no-hosts --pid-file --port=53 --address="/who.lab.test/10.0.0.11" \
    >"$LAB_DIR/rs1/dnsmasq.log" 2>&1 &
dnsmasq=$!
{
    configuration
    cat <<TOML
[[service]]
name = "dns"
vip = "$VIP"
protocol = "udp"
ports = 53
[service.check]
kind = "dns"
query = "who.lab.test"
interval = "400ms"
timeout = "300ms"
retries = 0
[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
[[service]]
name = "secure"
vip = "$VIP"
protocol = "tcp"
ports = 443
[service.check]
kind = "tls"
server_name = "www.lab.test"
interval = "400ms"
timeout = "300ms"
retries = 0
[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
[[service.real_server]]
name = "rs2"
address = "10.0.0.12"
[[service]]
name = "verified"
vip = "$VIP"
protocol = "tcp"
ports = 8443
[service.check]
kind = "https"
port = 443
server_name = "www.lab.test"
ca = "$LAB_DIR/ca.pem"
interval = "400ms"
timeout = "300ms"
retries = 0
[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
[[service.real_server]]
name = "rs2"
address = "10.0.0.12"
[[service.real_server]]
name = "rs3"
address = "10.0.0.13"
TOML
} >"$LAB_DIR/vipr.toml"
# Someone who signs certificates, and servers with such: for the name that is asked for, and for
# another one; and one that speaks something else at its port.
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=authority -days 2 \
    -keyout "$LAB_DIR/ca.key" -out "$LAB_DIR/ca.pem" 2>"$LAB_DIR/openssl.log"
certificate() {
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "$LAB_DIR/$1.key" \
        -out "$LAB_DIR/$1.csr" 2>>"$LAB_DIR/openssl.log"
    openssl x509 -req -in "$LAB_DIR/$1.csr" -CA "$LAB_DIR/ca.pem" -CAkey "$LAB_DIR/ca.key" \
        -CAcreateserial -days 2 -extfile <(printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE' "$1") \
        -out "$LAB_DIR/$1.pem" 2>>"$LAB_DIR/openssl.log"
}
certificate www.lab.test
certificate other.lab.test
lab_exec rs1 openssl s_server -quiet -accept 443 -key "$LAB_DIR/www.lab.test.key" \
    -cert "$LAB_DIR/www.lab.test.pem" -www >"$LAB_DIR/rs1/openssl.log" 2>&1 &
lab_exec rs3 openssl s_server -quiet -accept 443 -key "$LAB_DIR/other.lab.test.key" \
    -cert "$LAB_DIR/other.lab.test.pem" -www >"$LAB_DIR/rs3/openssl.log" 2>&1 &
lab_exec rs2 socat TCP-LISTEN:443,reuseaddr,fork SYSTEM:'echo SSH-2.0-lab' 2>"$LAB_DIR/rs2/socat.log" &
lab_vipr_start "$LAB_DIR/vipr.toml"
lab_capture back director vipr-back "tcp port 80"
for number in "${REAL_SERVERS[@]}"; do
    expect_health web "rs$number" "true null"
done
expect_health dns rs1 "true null"
expect_health secure rs1 "true null"
expect_health secure rs2 "false the answer is not TLS"
expect_health verified rs1 "true null"
expect_health verified rs2 "false the answer is not TLS"
expect_health verified rs3 "false its certificate is for another name"
lab_expect "requests" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"

# The service itself says that it is not well.
rm "$LAB_DIR/rs2/www/health"
expect_health web rs2 "false HTTP 500"
lab_says "$LAB_DIR/vipr.log" "service web: real server rs2 down (2 failed checks: HTTP 500)" ||
    lab_fail "the log does not say so"
lab_expect "requests without rs2" "$(lab_requests 40 | lab_tally)" "30 rs1, 10 rs3"
lab_expect "status says why" "$(lab_vipr status | grep -c '^! service web: real server rs2: its http check fails: HTTP 500')" 1
status=0
lab_vipr check-now web rs2 >"$LAB_DIR/check-now" || status=$?
lab_expect "check-now of a sick real server: $(cat "$LAB_DIR/check-now")" "$status" 1
set_health
expect_health web rs2 "true null"
lab_says "$LAB_DIR/vipr.log" "service web: real server rs2 up (2 passed checks)" ||
    lab_fail "the log does not say so"
lab_vipr check-now web rs2

# It listens on its own address only: the RIP answers, the VIP does not.
sed -i 's/listen 80;/listen 10.0.0.13:80;/' "$LAB_DIR/rs3/nginx.conf"
ip netns pids rs3 | xargs kill
# shellcheck disable=SC2016 # for the inner shell
lab_wait 10 "nginx of rs3 to end" bash -c '[[ -z $(ip netns pids rs3) ]]'
lab_exec rs3 nginx -p "$LAB_DIR/rs3" -e "$LAB_DIR/rs3/error.log" -c "$LAB_DIR/rs3/nginx.conf" &
lab_wait 10 "nginx of rs3 on its RIP" lab_answers rs3 10.0.0.13
expect_health web rs3 "false connection refused"

# The VIP is missing.
ip -n rs1 address delete "$VIP/32" dev lo
expect_health web rs1 "false no answer"
lab_expect "requests" "$(lab_requests 10 | lab_tally)" "10 rs2"
ip -n rs1 address add "$VIP/32" dev lo
expect_health web rs1 "true null"
# And where it forwards, the check comes back and says so.
ip -n rs1 address delete "$VIP/32" dev lo
lab_sysctl rs1 net/ipv4/ip_forward 1
ip -n rs1 route add "$VIP/32" via 10.0.0.1 dev back
expect_health web rs1 "false it sends the check back: it lacks the VIP"
ip -n rs1 route delete "$VIP/32"
ip -n rs1 address add "$VIP/32" dev lo
expect_health web rs1 "true null"

# DNS: nobody there any more.
kill "$dnsmasq"
expect_health dns rs1 "false port unreachable, says $VIP"

lab_capture_stop
lab_expect "check packets that do not come from the director's address" \
    "$(lab_count back "dst $VIP and tcp and not src 10.0.0.1 and not src $CLIENT_IP")" 0
lab_expect_balance

# Another kind, while running: a command.
# shellcheck disable=SC2016 # for vipr's command
sed -i 's#^kind = "http"#kind = "exec"\ncommand = ["/bin/sh", "-c", "test -e /run/lab/$VIPR_REAL_SERVER.ok || { echo nothing there; exit 1; }"]#; /^path = /d; /^body = /d' \
    "$LAB_DIR/vipr.toml"
touch "$LAB_DIR/rs1.ok"
lab_vipr reload
expect_health web rs1 "true null"
expect_health web rs2 "false nothing there"
touch "$LAB_DIR/rs2.ok"
expect_health web rs2 "true null"
lab_expect_balance
lab_vipr_stop
lab_down

# One segment.
lab_up one-arm
set_health
configuration >"$LAB_DIR/vipr.toml"
lab_vipr_start "$LAB_DIR/vipr.toml"
for number in "${REAL_SERVERS[@]}"; do
    expect_health web "rs$number" "true null"
done
rm "$LAB_DIR/rs1/www/health"
expect_health web rs1 "false HTTP 500"
lab_expect "requests" "$(lab_requests 30 | lab_tally)" "20 rs2, 10 rs3"
lab_expect "conflicts" "$(lab_status '.conflicts | length')" 0
lab_expect_balance

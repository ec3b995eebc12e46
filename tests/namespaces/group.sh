#!/usr/bin/env bash
# HTTP and HTTPS as one service: a client is served by the same real server on both ports, and
# clients are spread over the real servers.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=www.lab.test \
    -keyout "$LAB_DIR/key.pem" -out "$LAB_DIR/certificate.pem" 2>"$LAB_DIR/openssl.log"
# A second nginx for TLS, with a second port for the same content.
for number in "${REAL_SERVERS[@]}"; do
    directory=$LAB_DIR/tls$number
    mkdir -p "$directory"
    sed "s|$LAB_DIR/rs$number|$directory|g; /listen .::.:80;/d; s|listen 80;|listen 443 ssl; listen 8080; ssl_certificate $LAB_DIR/certificate.pem; ssl_certificate_key $LAB_DIR/key.pem;|" \
        "$LAB_DIR/rs$number/nginx.conf" >"$directory/nginx.conf"
    lab_exec "rs$number" nginx -p "$directory" -e "$directory/error.log" \
        -c "$directory/nginx.conf" >"$directory/nginx.out" 2>&1 &
    lab_wait 10 "nginx with TLS of rs$number" \
        lab_in "rs$number" curl -sko "$LAB_DIR/out" --max-time 1 https://127.0.0.1/
done

config=$LAB_DIR/vipr.toml
group() {
    sed "/^vip = /d; /^protocol = /d; s|^ports = 80\$|$1|; s/\"wrr\"/\"rr\"/" "$(lab_config)"
}
persistence='persistence = { timeout = "1m" }'
listen='"192.0.2.10:80/tcp", { vip = "192.0.2.10", protocol = "tcp", ports = 443 }'
group "listen = [$listen]\n$persistence" >"$config"
lab_vipr_start "$config"

# Of each client, an answer on either port, four times.
clients=(101 102 103 104 105 106)
for host in "${clients[@]}"; do
    ip -n client address add "192.0.2.$host/24" dev front
done
ask() {
    lab_in client curl -sSk --max-time 10 --interface "192.0.2.$1" -H 'Connection: close' "$2"
}
served=""
for host in "${clients[@]}"; do
    answers=$(for _ in 1 2 3 4; do
        ask "$host" "http://$VIP/"
        ask "$host" "https://$VIP/"
    done | sort -u)
    lab_expect "client $host is served by one real server on both ports" \
        "$(wc -l <<<"$answers")" 1
    served+=$answers$'\n'
done
lab_expect "clients" "$(printf %s "$served" | lab_tally)" "2 rs1, 2 rs2, 2 rs3"
lab_expect "templates shown" "$(lab_vipr connections | awk '$3 == "NONE"' | wc -l)" 6
lab_expect "one of them" "$(lab_vipr connections |
    awk '$3 == "NONE" && $4 == "192.0.2.101:0" { print $1, $5 }')" "TCP 192.0.2.10:80"
lab_expect "services" "$(lab_status '.services | length')" 1
lab_expect "connections of it" "$(lab_status '.services[0].connections')" 48
lab_expect "a port it does not list is refused (curl's 7)" \
    "$(ask 101 "http://$VIP:8080/" 2>/dev/null || echo $?)" 7

# Without persistence, while it runs, clients go round.
group "listen = [$listen]" >"$config"
lab_wait 5 "persistence to be gone" lab_status_is '.services[0].persistence' null
lab_expect "without persistence" \
    "$(for _ in {1..6}; do ask 101 "https://$VIP/"; done | lab_tally)" "2 rs1, 2 rs2, 2 rs3"
lab_expect_balance

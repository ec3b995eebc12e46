#!/usr/bin/env bash
# A sorry server: it gets the clients while no real server is up, and only then.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
# rs3 is not one of the real servers, but says sorry for them.
config=$LAB_DIR/vipr.toml
awk -v RS= -v ORS='\n\n' '!/"rs3"/' "$(lab_config)" >"$config"
cat >>"$config" <<'TOML'
[service.sorry_server]
name = "sorry"
address = "10.0.0.13"
vip_mac = ["52:54:00:00:01:13"]
TOML
lab_vipr_start "$config"
lab_expect "with real servers" "$(lab_requests 50 | lab_tally)" "30 rs1, 20 rs2"
lab_expect "ping" "$(lab_in client ping -q -c 1 -w 2 "$VIP" >/dev/null && echo answered)" answered

# All real servers fall silent.
for number in 1 2; do
    ip -n director link set "rs$number-back" down
done
lab_wait 120 "the service to be down" lab_status_is '.services[0].up' false
lab_expect "without real servers" "$(lab_requests 20 | lab_tally)" "20 rs3"
lab_expect "its connections" "$(lab_status '.services[0].sorry_server.connections')" 20
lab_expect "ping" "$(lab_in client ping -q -c 1 -w 1 "$VIP" >/dev/null || echo silence)" silence
lab_vipr status
lab_expect "what is logged" \
    "$(grep -c 'service web: down, .* new connections go to sorry server sorry' "$LAB_DIR/vipr.log")" 1

# One is there again.
ip -n director link set rs2-back up
lab_wait 60 "the service to be up" lab_status_is '.services[0].up' true
lab_expect "with one real server" "$(lab_requests 20 | lab_tally)" "20 rs2"

# By hand, and by a quorum that the one that is left does not make.
lab_vipr weight web rs2 0
lab_expect "with weights of 0" "$(lab_requests 5 | lab_tally)" "5 rs3"
lab_vipr undrain web rs2
lab_expect "weights are back" "$(lab_requests 5 | lab_tally)" "5 rs2"
sed 's/^scheduler = .*/&\nquorum = 3/' "$config" >"$config.new"
mv "$config.new" "$config"
lab_wait 5 "the quorum to be asked for" lab_status_is '.services[0].quorum' 3
lab_expect "below the quorum" "$(lab_requests 5 | lab_tally)" "5 rs3"
lab_expect_balance

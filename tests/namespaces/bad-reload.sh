#!/usr/bin/env bash
# A broken configuration: the running one stays, the log says what is wrong and where, and a
# repaired file is taken.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
config=$LAB_DIR/etc/vipr.toml
mkdir "$LAB_DIR/etc"
cp "$(lab_config)" "$config"
lab_vipr_start "$config"

weights() {
    lab_status '[.services[0].real_servers[].weight] | join(" ")'
}

lab_expect "weights at first" "$(weights)" "3 2 1"

# What is done to the file, and what the log must say about it.
while IFS='|' read -r edit complaint; do
    cp "$(lab_config)" "$LAB_DIR/broken.toml"
    sed -i "$edit" "$LAB_DIR/broken.toml"
    before=$(wc -l <"$LAB_DIR/vipr.log")
    mv "$LAB_DIR/broken.toml" "$config"
    said() { tail -n "+$((before + 1))" "$LAB_DIR/vipr.log" | grep -qF -e "$complaint"; }
    lab_wait 5 "the log to say '$complaint'" said
    lab_expect "the running configuration after: $edit" "$(lab_status .generation) $(weights)" "1 3 2 1"
    lab_expect "requests meanwhile" "$(lab_requests 6 | lab_tally)" "3 rs1, 2 rs2, 1 rs3"
done <<'ROWS'
s/^weight = 3$/wieght = 3/|wieght
s/^weight = 3$/weight = /|vipr.toml:
s/^scheduler = .*/scheduler = "rrr"/|rrr
s/^vip = .*/vip = "10.0.0.11"/|10.0.0.11
ROWS

# An explicit reload reports it to who asks, and fails.
status=0
lab_vipr reload >"$LAB_DIR/reload" 2>&1 || status=$?
lab_expect "reload of a broken file: exit status" "$((status != 0))" 1

rm "$config"
lab_expect "the running configuration with the file gone" \
    "$(lab_status .generation) $(weights)" "1 3 2 1"
sed 's/^weight = 3$/weight = 4/' "$(lab_config)" >"$config"
lab_wait 5 "the repaired file to be taken" \
    lab_status_is '[.services[0].real_servers[].weight] | join(" ")' "4 2 1"
lab_expect "requests at last" "$(lab_requests 7 | lab_tally)" "4 rs1, 2 rs2, 1 rs3"

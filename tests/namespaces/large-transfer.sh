#!/usr/bin/env bash
# Large transfers both ways while the configuration changes around them: every byte arrives.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
for number in "${REAL_SERVERS[@]}"; do
    head -c 16M /dev/urandom >"$LAB_DIR/rs$number/www/big"
done
head -c 16M /dev/urandom >"$LAB_DIR/upload"
config=$LAB_DIR/vipr.toml
cp "$(lab_config)" "$config"
lab_vipr_start "$config"

# A download that takes four seconds, over a connection to rs1, the first that is chosen.
lab_in client curl -sS --max-time 30 -o "$LAB_DIR/download" "http://$VIP/slow/big" &
download=$!
lab_wait 5 "the download to begin" test -s "$LAB_DIR/download"

# Meanwhile rs1 is quiesced, the others' weights change, and other traffic comes and goes.
sed -i 's/^weight = 3$/weight = 0/; s/^weight = 1$/weight = 2/' "$config"
lab_wait 5 "the new weights" lab_status_is '[.services[0].real_servers[].weight] | join(" ")' "0 2 2"
lab_expect "new connections avoid rs1" "$(lab_requests 40 | lab_tally)" "20 rs2, 20 rs3"
kill -0 "$download"
echo "ok: the download is still going on"

lab_in client curl -sS --max-time 30 -T "$LAB_DIR/upload" "http://$VIP/upload/copy"
uploaded=$(sha256sum "$LAB_DIR"/rs[23]/www/upload/copy | cut -d' ' -f1)
lab_expect "the upload" "$uploaded" "$(sha256sum <"$LAB_DIR/upload" | cut -d' ' -f1)"

wait "$download"
lab_expect "the download" "$(sha256sum <"$LAB_DIR/download")" "$(sha256sum <"$LAB_DIR/rs1/www/big")"
lab_expect_balance

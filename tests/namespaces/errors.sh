#!/usr/bin/env bash
# A bad environment: one line that says what, where and what to do, the right exit status, and
# nothing half-made left behind.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
links() {
    ip -n director -o link show | sed 's/state [A-Z]*//' | sort
}

# Runs vipr in a bad environment: `bad WHAT EXIT-STATUS TEXT… -- COMMAND…`. Standard error must
# have each text, in one line that begins with `vipr: `.
bad() {
    local what=$1 expected=$2 status=0 texts=() text line before
    shift 2
    while [[ $1 != -- ]]; do
        texts+=("$1")
        shift
    done
    shift
    before=$(links)
    lab_in director timeout 10 "$@" >"$LAB_DIR/out" 2>"$LAB_DIR/err" || status=$?
    line=$(grep '^vipr: ' "$LAB_DIR/err" || true)
    echo "   $what: ${line:-$(cat "$LAB_DIR/err")}"
    lab_expect "$what: exit status" "$status" "$expected"
    lab_expect "$what: lines beginning with 'vipr: '" "$(grep -c '^vipr: ' "$LAB_DIR/err" || true)" 1
    for text in "${texts[@]}"; do
        [[ $line == *"$text"* ]] || lab_fail "$what: no '$text' in: $line"
    done
    lab_expect "$what: standard output" "$(cat "$LAB_DIR/out")" ""
    lab_expect "$what: interfaces changed" "$(diff <(echo "$before") <(links) || true)" ""
    if [[ $what != *socket* ]]; then
        lab_expect "$what: control sockets" "$(find /run -name 'vipr*.sock')" ""
    fi
}

config=$LAB_DIR/vipr.toml
cp "$(lab_config)" "$config"

bad "no configuration file" 2 "$LAB_DIR/none.toml" -- "$VIPR" run -c "$LAB_DIR/none.toml"
bad "a directory as configuration" 2 "$LAB_DIR" -- "$VIPR" run -c "$LAB_DIR"
bad "no router to ask (socket)" 1 /run/vipr.sock -- "$VIPR" status

# Privilege: everything but the right to administer networks.
bad "no privilege" 1 vipr-front -- setpriv --bounding-set=-net_admin \
    --ambient-caps=-net_admin --inh-caps=-net_admin "$VIPR" run -c "$config"

# /dev/net/tun: not there, and something else in its place.
bad "no /dev/net/tun" 1 /dev/net/tun -- unshare --mount bash -c \
    'vm/lab.sh mount tmpfs /dev/net && exec "$@"' - "$VIPR" run -c "$config"
bad "/dev/net/tun is something else" 1 vipr-front -- unshare --mount bash -c \
    'vm/lab.sh mount /dev/null /dev/net/tun && exec "$@"' - "$VIPR" run -c "$config"

# The bridge is a veth, after the first segment was already made.
ip -n director link add plain type veth peer name other
sed 's/"br-backend"/"plain"/' "$config" >"$LAB_DIR/veth.toml"
bad "the bridge is a veth" 1 plain bridge -- "$VIPR" run -c "$LAB_DIR/veth.toml"
sed 's/"vipr-back"/"plain"/' "$config" >"$LAB_DIR/tap.toml"
bad "the TAP is a veth" 1 plain -- "$VIPR" run -c "$LAB_DIR/tap.toml"

# Ports and sockets already taken.
sed 's/^name = "demo"$/&\nmetrics = "127.0.0.1:9469"/' "$config" >"$LAB_DIR/metrics.toml"
lab_exec director socat TCP-LISTEN:9469,bind=127.0.0.1,reuseaddr,fork /dev/null &
taken=$!
lab_wait 5 "the port to be taken" lab_in director bash -c ': 2>/dev/null >/dev/tcp/127.0.0.1/9469'
bad "the metrics port is taken" 1 127.0.0.1:9469 -- "$VIPR" run -c "$LAB_DIR/metrics.toml"
kill "$taken"

sed 's#^name = "demo"$#&\ncontrol_socket = "/run/none/vipr.sock"#' "$config" >"$LAB_DIR/socket.toml"
bad "no directory for the control socket" 1 /run/none/vipr.sock -- "$VIPR" run -c "$LAB_DIR/socket.toml"

# A second router: with the same socket, and with the same TAP.
lab_vipr_start "$config"
bad "the control socket belongs to a running router" 1 /run/vipr.sock -- "$VIPR" run -c "$config"
sed 's#^name = "demo"$#&\ncontrol_socket = "/run/other.sock"#' "$config" >"$LAB_DIR/second.toml"
bad "the TAP belongs to a running router (socket)" 1 vipr-front -- "$VIPR" run -c "$LAB_DIR/second.toml"
lab_expect "the first router works on" "$(lab_requests 6 | lab_tally)" "3 rs1, 2 rs2, 1 rs3"

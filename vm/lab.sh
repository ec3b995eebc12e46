#!/usr/bin/env bash
# A direct-routing cluster in network namespaces: a client, a director's host with its bridges, and
# real servers (nginx) that have the VIP on lo and hide it from ARP.
#
#     vm/lab.sh probe [PROGRAM...]    says what this machine lacks for it (exit 1 if anything)
#     vm/lab.sh run COMMAND [ARG...]  runs a command in a private environment, as root of it
#     vm/lab.sh mount WHAT TARGET     mounts tmpfs, or by bind a file, in such an environment
#     vm/lab.sh shell [one-arm]       the cluster with vipr running, and a shell in it
#
# The private environment has its own network, mounts, processes and /run. When its first process
# ends, however it ends, the kernel ends and removes everything in it: nothing can be left behind.
# Scripts that run in it source this file for the functions below; topologies:
#
#     two-segments    client ── br-vip ── vipr ── br-backend ── real servers
#                        └── replies, from the real servers' second cards on br-vip
#     one-arm         client, vipr and the real servers, all on br-vip

LAB_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VIPR=${VIPR:-$LAB_ROOT/target/release/vipr}
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Addresses, and the MACs that vm/demo-*.toml gives to the director.
# shellcheck disable=SC2034 # for those who source this
{
    VIP=192.0.2.10
    VIP6=2001:db8:0:1::10
    CLIENT_IP=192.0.2.100
    CLIENT_IP6=2001:db8:0:1::64
    CLIENT_MAC=52:54:00:00:00:64
    DIRECTOR_FRONT_MAC=02:00:00:00:01:01
    DIRECTOR_BACK_MAC=02:00:00:00:02:01
}
REAL_SERVERS=(1 2 3)
# What lives and dies with the lab: logs, captures, configurations.
LAB_DIR=/run/lab

# ---- The cluster -------------------------------------------------------------------------------

# Makes the cluster without vipr: `lab_up two-segments` or `lab_up one-arm`.
lab_up() {
    TOPOLOGY=$1
    case $TOPOLOGY in
        two-segments) BRIDGES=(br-vip br-backend) ;;
        one-arm) BRIDGES=(br-vip) ;;
        *) lab_fail "unknown topology '$TOPOLOGY': expected two-segments or one-arm" ;;
    esac
    mkdir -p "$LAB_DIR"
    local bridge number
    lab_namespace director
    for bridge in "${BRIDGES[@]}"; do
        ip -n director link add "$bridge" up type bridge stp_state 0 mcast_snooping 0
    done
    lab_namespace client
    lab_cable client front "$CLIENT_MAC" br-vip
    ip -n client address add "$CLIENT_IP/24" dev front
    for number in "${REAL_SERVERS[@]}"; do
        lab_real_server "$number"
    done
}

# One real server: RIP .1N, the VIP on lo, hidden from ARP on every card.
lab_real_server() {
    local name=rs$1
    lab_namespace "$name"
    ip -n "$name" address add "$VIP/32" dev lo
    # Answer ARP only on the card that has the address asked for, and never name the VIP as the
    # sender of an ARP request.
    lab_sysctl "$name" net/ipv4/conf/all/arp_ignore 1
    lab_sysctl "$name" net/ipv4/conf/all/arp_announce 2
    if [[ $TOPOLOGY == two-segments ]]; then
        lab_cable "$name" back "$(lab_back_mac "$1")" br-backend
        ip -n "$name" address add "10.0.0.1$1/24" dev back
        # Requests come in by one card and replies leave by the other: a strict reverse path filter
        # would drop them as martians.
        lab_sysctl "$name" net/ipv4/conf/all/rp_filter 0
        lab_sysctl "$name" net/ipv4/conf/back/rp_filter 2
    fi
    lab_cable "$name" front "$(lab_front_mac "$1")" br-vip
    ip -n "$name" address add "192.0.2.1$1/24" dev front
    lab_nginx "$name"
}

# Gives the cluster IPv6 beside IPv4, addresses that end like those of IPv4, and bridges that pass
# multicast frames on to those who have said that they listen, and ask for it.
lab_up_ipv6() {
    local namespace bridge number card
    for namespace in director client "${REAL_SERVERS[@]/#/rs}"; do
        lab_sysctl "$namespace" net/ipv6/conf/all/disable_ipv6 0
        lab_sysctl "$namespace" net/ipv6/conf/default/disable_ipv6 0
    done
    ip -n client address add "$CLIENT_IP6/64" dev front nodad
    for number in "${REAL_SERVERS[@]}"; do
        ip -n "rs$number" address add "$VIP6/128" dev lo nodad
        ip -n "rs$number" address add "2001:db8:0:1::1$number/64" dev front nodad
        if [[ $TOPOLOGY == two-segments ]]; then
            ip -n "rs$number" address add "2001:db8:0:2::1$number/64" dev back nodad
        fi
    done
    for bridge in "${BRIDGES[@]}"; do
        # Times are in hundredths of a second; what it asks counts after one answer's time.
        ip -n director link set "$bridge" type bridge mcast_query_response_interval 100 \
            mcast_query_interval 1000 mcast_startup_query_interval 200
        ip -n director link set "$bridge" type bridge mcast_snooping 1 mcast_querier 1
        lab_wait 10 "$bridge to have an address to ask from" lab_has_link_local "$bridge"
    done
}

lab_has_link_local() {
    ip -n director -6 address show dev "$1" scope link -tentative | grep -q inet6
}

# The configuration of a topology with a service of IPv6 instead, its real servers found by ND.
lab_config_ipv6() {
    sed -e "s/^vip = .*/vip = \"$VIP6\"/" \
        -e 's/^address = \["192.0.2.2\/24"\]/address = ["192.0.2.2\/24", "2001:db8:0:1::2\/64"]/' \
        -e 's/^address = \["10.0.0.1\/24"\]/address = ["10.0.0.1\/24", "2001:db8:0:2::1\/64"]/' \
        -e 's/^address = "192.0.2.1\([1-9]\)"/address = "2001:db8:0:1::1\1"/' \
        -e 's/^address = "10.0.0.1\([1-9]\)"/address = "2001:db8:0:2::1\1"/' "$(lab_config)"
}

# A client beyond a router, and a link between the two that carries 1400 bytes towards the client.
lab_far_client() {
    local number
    lab_namespace router
    lab_namespace far
    lab_cable router front 52:54:00:00:00:fe br-vip
    ip -n router link add far type veth peer name front netns far
    for number in router far; do
        lab_sysctl "$number" net/ipv6/conf/all/disable_ipv6 0
    done
    lab_sysctl router net/ipv4/ip_forward 1
    lab_sysctl router net/ipv6/conf/all/forwarding 1
    ip -n router address add 192.0.2.254/24 dev front
    ip -n router address add 2001:db8:0:1::fe/64 dev front nodad
    ip -n router address add 198.51.100.1/24 dev far
    ip -n router address add 2001:db8:c::1/64 dev far nodad
    ip -n router link set far up mtu 1400
    ip -n far link set front up
    ip -n far address add 198.51.100.7/24 dev front
    ip -n far address add 2001:db8:c::7/64 dev front nodad
    ip -n far route add default via 198.51.100.1
    ip -n far -6 route add default via 2001:db8:c::1
    for number in "${REAL_SERVERS[@]}"; do
        ip -n "rs$number" route add 198.51.100.0/24 via 192.0.2.254
        ip -n "rs$number" -6 route add 2001:db8:c::/64 via 2001:db8:0:1::fe
    done
}

# Removes the cluster and ends what runs in it.
lab_down() {
    local namespace
    for namespace in director client "${REAL_SERVERS[@]/#/rs}"; do
        ip netns pids "$namespace" | xargs -r kill
        ip netns delete "$namespace"
    done
    rm -rf "${LAB_DIR:?}"/*
}

# Real server N: the address and MAC that vipr knows it by, and the MACs of its cards.
lab_rip() { if [[ $TOPOLOGY == one-arm ]]; then echo "192.0.2.1$1"; else echo "10.0.0.1$1"; fi; }
lab_rip6() { if [[ $TOPOLOGY == one-arm ]]; then echo "2001:db8:0:1::1$1"; else echo "2001:db8:0:2::1$1"; fi; }
lab_mac() { if [[ $TOPOLOGY == one-arm ]]; then lab_front_mac "$1"; else lab_back_mac "$1"; fi; }
lab_front_mac() { echo "52:54:00:00:01:1$1"; }
lab_back_mac() { echo "52:54:00:00:00:1$1"; }

# The card by which real server requests reach it.
lab_request_card() { if [[ $TOPOLOGY == one-arm ]]; then echo front; else echo back; fi; }

# Runs a command in a namespace: `lab_in client curl …`.
lab_in() {
    nsenter --net="/run/netns/$1" -- "${@:2}"
}

# The same for the background, in place of the shell: `lab_exec rs1 nginx &`, and $! is its own.
lab_exec() {
    exec nsenter --net="/run/netns/$1" -- "${@:2}"
}

lab_namespace() {
    ip netns add "$1"
    lab_sysctl "$1" net/ipv6/conf/all/disable_ipv6 1
    lab_sysctl "$1" net/ipv6/conf/default/disable_ipv6 1
    ip -n "$1" link set lo up
}

lab_sysctl() {
    local file=/proc/sys/$2
    # shellcheck disable=SC2016 # for the inner shell
    lab_in "$1" bash -c '[[ ! -e $1 ]] || echo "$2" >"$1"' - "$file" "$3"
}

# A card: `lab_cable NAMESPACE CARD MAC BRIDGE`. Its other end is NAMESPACE-CARD on the bridge.
lab_cable() {
    ip -n director link add "$1-$2" master "$4" up type veth peer name "$2" address "$3" netns "$1"
    ip -n "$1" link set "$2" up
}

# nginx in a namespace; the answer to GET / is the namespace's name. One process that stays who it is.
lab_nginx() {
    local directory=$LAB_DIR/$1
    mkdir -p "$directory/www"
    cat >"$directory/nginx.conf" <<NGINX
$( ((EUID)) || echo "user root;")
daemon off;
master_process off;
pid $directory/nginx.pid;
events { worker_connections 1024; }
http {
    access_log $directory/access.log;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    server {
        listen 80;
$([[ ! -e /proc/net/if_inet6 ]] || echo "        listen [::]:80;")
        root $directory/www;
        client_max_body_size 64m;
        location = / { default_type text/plain; return 200 "$1\n"; }
        location = /health { default_type text/plain; try_files /health =500; }
        location /slow/ { alias $directory/www/; limit_rate 4m; }
        location /upload/ { dav_methods PUT; create_full_put_path on; }
    }
}
NGINX
    lab_exec "$1" nginx -p "$directory" -e "$directory/error.log" -c "$directory/nginx.conf" \
        >"$directory/nginx.out" 2>&1 &
    lab_wait 10 "nginx of $1 to answer" lab_answers "$1" 127.0.0.1 ||
        lab_fail "nginx of $1: $(cat "$directory/nginx.out" "$directory/error.log")"
}

lab_answers() {
    [[ $(lab_in "$1" curl -s --max-time 1 "http://$2/") == "$1" ]]
}

# ---- vipr --------------------------------------------------------------------------------------

# The configuration of a topology, for scenarios to start from.
lab_config() {
    echo "$LAB_ROOT/vm/demo-$TOPOLOGY.toml"
}

# The same configuration with the director on cards of its host, without a TAP: `lab_direct packet
# FILE`. The cards are eth-vip and eth-backend, cabled to the bridges that the TAPs would be on.
lab_direct() {
    local bridge card
    for bridge in "${BRIDGES[@]}"; do
        card=eth-${bridge#br-}
        ip -n director link show "$card" >/dev/null 2>&1 ||
            ip -n director link add "$card" up type veth peer name "$card-end"
        ip -n director link set "$card-end" master "$bridge" up
    done
    sed -e "s/^tap = .*/attach = \"$1\"/" -e 's/^bridge = "br-\(.*\)"/interface = "eth-\1"/' \
        "$(lab_config)" >"$2"
}

# Starts vipr on the director's host and waits until it answers `status` and knows every real
# server's MAC (that second part not with a second argument of `any`).
lab_vipr_start() {
    local config=$1 state=${2:-resolved}
    [[ -x $VIPR ]] || lab_fail "no program $VIPR: make build, or set VIPR to another"
    lab_exec director "$VIPR" run -c "$config" >"$LAB_DIR/vipr.log" 2>&1 &
    VIPR_PID=$!
    if ! lab_wait 10 "vipr to start" lab_vipr_is_up; then
        lab_fail "vipr did not start: $(cat "$LAB_DIR/vipr.log")"
    fi
    if [[ $state == resolved ]]; then
        lab_wait 10 "vipr to find its real servers" lab_vipr_is_resolved ||
            lab_fail "a real server is not up: $(lab_vipr status)"
    fi
}

# Asks it to end, waits, and gives its exit status.
lab_vipr_stop() {
    kill -TERM "$VIPR_PID"
    wait "$VIPR_PID"
}

# A vipr command on the director's host: `lab_vipr status --json`.
lab_vipr() {
    lab_in director "$VIPR" "$@"
}

# A value of `status --json`, by a jq filter: `lab_status .generation`.
lab_status() {
    lab_vipr status --json | jq -r "$1"
}

lab_status_is() {
    [[ $(lab_status "$1") == "$2" ]]
}

# Checks that every frame vipr received is accounted for.
lab_expect_balance() {
    lab_expect "received = forwarded + replied + consumed + held + dropped" "$(lab_status \
        '.counters | .received == .forwarded + .replied + .consumed + .held + .dropped')" true
}

lab_vipr_is_up() {
    # No socket yet, or no answer yet: not up. A dead vipr never will be.
    kill -0 "$VIPR_PID" 2>/dev/null || lab_fail "vipr ended: $(cat "$LAB_DIR/vipr.log")"
    lab_vipr status >/dev/null 2>&1
}

lab_vipr_is_resolved() {
    local status
    status=$(lab_vipr status --json 2>/dev/null) && [[ $status != *'"mac":null'* && $status != *'"mac": null'* ]]
}

# ---- Looking at it -----------------------------------------------------------------------------

# Waits for a condition, polling it: `lab_wait SECONDS WHAT COMMAND…`. Says so when time is up. A slow
# machine has LAB_PATIENCE times as long.
lab_wait() {
    local limit=$(($1 * ${LAB_PATIENCE:-1})) what=$2 end
    shift 2
    end=$((${EPOCHREALTIME/[.,]/} + limit * 1000000))
    until "$@"; do
        if ((${EPOCHREALTIME/[.,]/} > end)); then
            echo "waited ${limit} s in vain for $what" >&2
            return 1
        fi
        sleep 0.05
    done
}

# Whether a command prints nothing.
lab_is_silent() {
    [[ -z $("$@") ]]
}

# Whether a file is there and has a text in it.
lab_says() {
    grep -qF -e "$2" "$1" 2>/dev/null
}

# Records frames: `lab_capture NAME NAMESPACE CARD [FILTER…]`, until `lab_capture_stop`. Frames over
# 2 KB are cut: with slots for any size the kernel's buffer would hold but a few.
lab_capture() {
    local name=$1 namespace=$2 card=$3
    shift 3
    # What an earlier one of this name said is not to be taken for its word.
    rm -f "$LAB_DIR/$name.tcpdump"
    lab_exec "$namespace" tcpdump -i "$card" -n -U --immediate-mode -B 16384 -s 2048 -Z root \
        -w "$LAB_DIR/$name.pcap" "$@" 2>"$LAB_DIR/$name.tcpdump" &
    CAPTURES+=("$name:$!")
    lab_wait 10 "tcpdump on $card of $namespace" lab_says "$LAB_DIR/$name.tcpdump" "listening on" ||
        lab_fail "$(cat "$LAB_DIR/$name.tcpdump")"
}

# Waits until every frame that has passed so far is in the captures' files.
lab_capture_settle() {
    local capture
    for capture in "${CAPTURES[@]}"; do
        lab_wait 10 "tcpdump to write what it has" lab_capture_is_written "${capture%:*}" "${capture#*:}" ||
            lab_fail "$(cat "$LAB_DIR/${capture%:*}.tcpdump")"
    done
}

# On SIGUSR1 tcpdump counts: "12 packets captured, 13 packets received by filter, 0 …". What came before
# it had its filter it counts and never captures: so many are missing each time then.
lab_capture_is_written() {
    local said=$LAB_DIR/$1.tcpdump before missing
    before=$(grep -c ' captured, ' "$said" || true)
    kill -USR1 "$2"
    until (($(grep -c ' captured, ' "$said" || true) > before)); do
        kill -0 "$2" || return 1
        sleep 0.01
    done
    mapfile -t missing < <(tail -n 20 <(grep ' captured, ' "$said") |
        sed 's/^tcpdump: //; s/^\([0-9]*\) packets* captured, \([0-9]*\) .*/\2-\1/')
    ((missing[-1] == 0)) || { ((${#missing[@]} == 20)) && lab_are_equal "${missing[@]}"; }
}

# Whether these are all the same number.
lab_are_equal() {
    local number
    for number; do
        ((number == $1)) || return 1
    done
}

# Ends all captures. A capture that lost frames proves nothing.
lab_capture_stop() {
    local capture name
    lab_capture_settle
    for capture in "${CAPTURES[@]}"; do
        name=${capture%:*}
        kill -TERM "${capture#*:}"
        wait "${capture#*:}" || true
        grep -q '^0 packets dropped by kernel' "$LAB_DIR/$name.tcpdump" ||
            lab_fail "capture $name lost frames: $(cat "$LAB_DIR/$name.tcpdump")"
    done
    CAPTURES=()
}
CAPTURES=()

# How many frames of a capture match: `lab_count NAME FILTER…`.
lab_count() {
    tcpdump -r "$LAB_DIR/$1.pcap" -n -Z root "${@:2}" 2>/dev/null | wc -l
}

# The IP packets of a capture, one line of hexadecimal digits each, without Ethernet headers.
lab_packets() {
    tcpdump -r "$LAB_DIR/$1.pcap" -n -t -x -Z root "${@:2}" 2>/dev/null |
        awk '/^\t0x/ { sub(/^.*:  /, ""); gsub(/ /, ""); packet = packet $0; next }
             packet { print packet; packet = "" } END { if (packet) print packet }'
}

# The MAC that the client has for an address, or nothing.
lab_client_arp() {
    lab_in client ip -4 neigh show "$1" dev front | sed -n 's/.* lladdr \([^ ]*\).*/\1/p'
}

# The MACs that answered ARP for an address, as the client's capture `client` has it, a line each.
lab_arp_answerers() {
    lab_capture_settle
    tcpdump -r "$LAB_DIR/client.pcap" -n -Z root "arp[6:2] = 2" 2>/dev/null |
        sed -n "s/.* Reply ${1//./\\.} is-at \\([0-9a-f:]*\\).*/\\1/p" | sort -u
}

# Asks by ARP, from a namespace's card, for an address: `answered` or `silence`.
lab_arping() {
    if lab_in "$1" arping -q -f -c 1 -w 1 -I "$2" "$3" 2>/dev/null; then echo answered; else echo silence; fi
}

# N requests, a connection each; prints the answers, a line each.
lab_requests() {
    lab_in client curl -sS --max-time 20 --connect-timeout 5 -H 'Connection: close' \
        "http://$VIP/?[1-$1]"
}

# Turns answers, a line each, into "30 rs1, 20 rs2".
lab_tally() {
    sort | uniq -c | awk '{ printf "%s%d %s", separator, $1, $2; separator = ", " }'
}

# Checks a value: `lab_expect WHAT ACTUAL EXPECTED`.
lab_expect() {
    [[ $2 == "$3" ]] || lab_fail "$1: expected '$3', got '$2'"
    echo "ok: $1: ${2//$'\n'/ }"
}

# Says what went wrong, and what vipr said, and ends the script, from a subshell too.
lab_fail() {
    {
        printf '%s: FAILED: %s\n' "${0##*/}" "$*"
        if [[ -e $LAB_DIR/vipr.log ]]; then
            echo "-- the end of vipr's log:"
            tail -n 30 "$LAB_DIR/vipr.log"
        fi
    } >&2
    ((BASHPID == $$)) || kill -TERM "$$"
    exit 1
}

# ---- The private environment -------------------------------------------------------------------

# What this machine lacks, a line each; nothing if the lab can run.
# Beside its own programs, those that are named.
lab_missing() {
    local tool
    for tool in perl ip unshare nsenter setpriv nginx curl tcpdump arping "$@"; do
        command -v "$tool" >/dev/null || echo "the program $tool (vm/install-deps.sh demo test)"
    done
    if [[ ! -c /dev/net/tun ]]; then
        echo "/dev/net/tun (as root: modprobe tun)"
    elif ! { : <>/dev/net/tun; } 2>/dev/null; then
        echo "permission to open /dev/net/tun (as root: chmod 0666 /dev/net/tun)"
    fi
    if ! unshare "${UNSHARE[@]}" true 2>/dev/null; then
        if ((EUID == 0)); then
            echo "the right to make namespaces (a container? it needs CAP_SYS_ADMIN and CAP_NET_ADMIN)"
        else
            echo "user namespaces for ordinary users (see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)"
        fi
    fi
}

# An ordinary user keeps his number and gets all capabilities: as user 0 of a namespace without other
# users, programs that want to become somebody else (tcpdump, nginx, dnsmasq) would fail.
UNSHARE=(--net --mount --pid --fork --kill-child --mount-proc)
((EUID == 0)) || UNSHARE=(--user --map-current-user --keep-caps "${UNSHARE[@]}")

# Runs a command in the private environment and gives its exit status. Ends it on a signal.
lab_run() {
    local missing environment status=0
    missing=$(lab_missing)
    if [[ $missing ]]; then
        lab_become_root "$missing" run "$@"
    fi
    setpriv --pdeathsig KILL unshare "${UNSHARE[@]}" \
        "$BASH" "$LAB_ROOT/vm/lab.sh" inside "$@" <&0 &
    environment=$!
    trap 'lab_interrupted "$environment"' INT TERM HUP
    wait "$environment" || status=$?
    return "$status"
}

lab_interrupted() {
    trap '' INT TERM HUP
    {
        kill -KILL "$1"
        wait "$1"
    } 2>/dev/null || true
    echo "lab: interrupted; the cluster is gone with all that was in it" >&2
    exit 130
}

# An ordinary user who may not do it here is told why, and what to type; sudo asks on a terminal.
lab_become_root() {
    local missing=$1
    shift
    printf 'lab: this machine lacks, for %s:\n' "$(id -un)" >&2
    printf '%s\n' "$missing" | sed 's/^/lab:   /' >&2
    if ((EUID != 0)); then
        echo "lab: as root it may work: sudo VIPR=$VIPR $LAB_ROOT/vm/lab.sh $*" >&2
        if [[ -t 0 ]] && command -v sudo >/dev/null; then
            exec sudo "VIPR=$VIPR" "$LAB_ROOT/vm/lab.sh" "$@"
        fi
    fi
    exit 77
}

# Mounts `tmpfs` or, by bind, a file: `lab_mount WHAT TARGET`. mount(8) refuses whoever is not user 0,
# whatever his capabilities; the system call does not.
lab_mount() {
    local call type=none flags=4096
    case $(uname -m) in
        x86_64) call=165 ;;
        aarch64 | riscv64 | loongarch64) call=40 ;;
        *) call=21 ;;
    esac
    [[ $1 != tmpfs ]] || { type=tmpfs flags=0; }
    perl -e 'my ($call, $flags, $what, $target, $type, $data) = @ARGV;
        syscall($call + 0, $what, $target, $type, $flags + 0, $data) == 0
            or die "cannot mount $what on $target: $!\n"' "$call" "$flags" "$1" "$2" "$type" ""
}

# The first process of the private environment.
lab_inside() {
    lab_mount tmpfs /run
    mkdir -p "$LAB_DIR"
    ip link set lo up
    LAB_INSIDE=1 "$@"
}

lab_shell() {
    set -euo pipefail
    lab_up "${1:-two-segments}"
    lab_vipr_start "$(lab_config)"
    echo "The cluster is up ($TOPOLOGY); exit ends it. Its namespaces: director client rs1 rs2 rs3. Try:"
    echo "    nsenter --net=/run/netns/client curl http://$VIP/"
    echo "    nsenter --net=/run/netns/director $VIPR status"
    PS1='lab# ' bash --norc -i || true
}

lab_main() {
    local command=${1:-help}
    shift || true
    case $command in
        probe)
            local missing
            missing=$(lab_missing "$@")
            [[ -z $missing ]] || { printf '%s\n' "$missing" && exit 1; }
            ;;
        run) lab_run "$@" ;;
        shell)
            # In the foreground, as an interactive shell wants it.
            exec unshare "${UNSHARE[@]}" "$BASH" "$LAB_ROOT/vm/lab.sh" inside lab_shell "$@"
            ;;
        inside) lab_inside "$@" ;;
        mount) lab_mount "$@" ;;
        *) sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
    esac
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    lab_main "$@"
elif [[ ${LAB_INSIDE:-} ]]; then
    set -E
    trap 'lab_fail "line $LINENO: $BASH_COMMAND"' ERR
else
    echo "${0##*/}: run me with vm/lab.sh run" >&2
    exit 1
fi

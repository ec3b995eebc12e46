#!/usr/bin/env bash
# vipr tune says what costs speed on a host, changes it, and changes it back; what somebody else
# changed in between stays.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_namespace director
config=$LAB_DIR/vipr.toml
cat >"$config" <<TOML
[segment.front]
role = "both"
tap = "t0"
bridge = "b0"
offload = "off"
[[service]]
vip = "192.0.2.10"
protocol = "tcp"
ports = 80
TOML
ip -n director tuntap add t0 mode tap
ip -n director link add b0 type bridge
ip -n director link add eth0 type veth peer name far
# GRO on, as a card has it: ETHTOOL_SGRO by SIOCETHTOOL.
# shellcheck disable=SC2016 # for perl
lab_in director perl -e 'use Socket; socket(my $s, AF_INET, SOCK_DGRAM, 0) or die $!;
    my $value = pack("LL", 0x2c, 1); my $request = pack("a16Px16", "eth0", $value);
    ioctl($s, 0x8946, $request) or die $!'
ip -n director link set t0 master b0
ip -n director link set eth0 master b0
tune() {
    lab_vipr tune -c "$config" --record "$LAB_DIR/tune.json" "$@"
}
queue() {
    ip -n director -json link show t0 | jq '.[0].txqlen'
}
bridge_nf=/proc/sys/net/bridge/bridge-nf-call-iptables
nf() {
    lab_in director sh -c '[ -e '$bridge_nf' ] && cat '$bridge_nf' || echo none'
}
has_nf=$(nf)
[[ $has_nf == none ]] || lab_sysctl director net/bridge/bridge-nf-call-iptables 1
expected_nf=$([[ $has_nf == none ]] && echo 0 || echo 1)

lab_expect "findings" "$(tune --check | grep -cE '^(t0 txqueuelen: is 1000|net.bridge.bridge-nf-call-iptables: is 1)')" \
    "$((1 + expected_nf))"
lab_expect "gro on the uplink" "$(tune | grep -c '^eth0 gro: is 1')" 1
lab_expect "advice" "$(tune --check | grep -c 'segment front: b0 joins nothing but eth0')" 1
lab_expect "a check changes nothing" "$(queue)" 1000
tune --apply >/dev/null
lab_expect "applied" "$(queue)" 4000
lab_expect "applied, the firewall" "$(nf)" "$([[ $has_nf == none ]] && echo none || echo 0)"
lab_expect "nothing left but advice" "$(tune --check | grep -c ': is ' || true)" 0
tune --apply >/dev/null
lab_expect "applied twice, undone" "$(tune --undo | grep -cE 't0 txqueuelen: 1000 again|eth0 gro: 1 again')" 2
lab_expect "queue as before" "$(queue)" 1000
lab_expect "firewall as before" "$(nf)" "$([[ $has_nf == none ]] && echo none || echo 1)"
lab_expect "the record" "$([[ -e $LAB_DIR/tune.json ]] && echo there || echo gone)" gone
lab_expect "nothing to undo" "$(tune --undo | grep -c 'nothing to undo')" 1
# Somebody else's change stays.
tune --apply >/dev/null
ip -n director link set t0 txqueuelen 7000
lab_expect "not ours any more" "$(tune --undo | grep -c 't0 txqueuelen: is 7000, changed by somebody since')" 1
lab_expect "queue" "$(queue)" 7000
# A record that is none.
echo "{}" >"$LAB_DIR/tune.json"
lab_expect "a wrong record" "$(tune --undo 2>&1 | grep -c 'not one of vipr tune' || true)" 1

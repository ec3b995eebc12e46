#!/usr/bin/env bash
# A trunk: both segments on one TAP, as VLANs 10 and 20, with a service of IPv4 and one of IPv6. A
# switch in user space (this machine's kernel need not know VLANs) gives the client and the real
# servers their VLANs untagged.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

lab_up two-segments
ip -n director link add br-trunk up type bridge stp_state 0 mcast_snooping 0

# Three TAPs, each on its bridge: what arrives on an access port goes out on the trunk with the tag
# of its VLAN, and the other way round.
cat >"$LAB_DIR/switch.pl" <<'PERL'
use strict;
use warnings;
use constant { TUNSETIFF => 0x400454ca, IFF_TAP => 2, IFF_NO_PI => 0x1000 };
my (%device, %vlan);
for my $argument (@ARGV) {
    my ($name, $vlan) = split /=/, $argument;
    open my $tap, '+<', '/dev/net/tun' or die "/dev/net/tun: $!";
    ioctl $tap, TUNSETIFF, pack 'a16 s x22', $name, IFF_TAP | IFF_NO_PI or die "$name: $!";
    $device{$vlan} = $tap;
    $vlan{fileno $tap} = $vlan;
}
my ($trunk, $set) = ($device{trunk}, '');
vec($set, fileno $_, 1) = 1 for values %device;
$| = 1;
print "ready\n";
while (1) {
    select my $ready = $set, undef, undef, undef;
    for my $tap (values %device) {
        next unless vec $ready, fileno $tap, 1;
        my $vlan = $vlan{fileno $tap};
        sysread $tap, my $frame, 65_536 or die "read: $!";
        if ($vlan ne 'trunk') {
            substr $frame, 12, 0, pack 'n n', 0x8100, $vlan;
            syswrite $trunk, $frame;
        } elsif (length $frame > 16 and unpack('x12 n', $frame) == 0x8100) {
            my $to = $device{unpack('x14 n', $frame) & 0xfff} or next;
            substr $frame, 12, 4, '';
            syswrite $to, $frame;
        }
    }
}
PERL
lab_exec director perl "$LAB_DIR/switch.pl" sw-trunk=trunk sw-front=10 sw-back=20 \
    >"$LAB_DIR/switch" 2>"$LAB_DIR/switch.err" &
lab_wait 5 "the switch" lab_says "$LAB_DIR/switch" ready
ip -n director link set sw-trunk master br-trunk up
ip -n director link set sw-front master br-vip up
ip -n director link set sw-back master br-backend up

lab_up_ipv6

config=$LAB_DIR/vipr.toml
{ lab_config_ipv6 | sed 's/^name = "web"/name = "web6"/' && sed -n '/^\[\[service\]\]/,$p' "$(lab_config)"; } |
    sed 's/^tap = "vipr-front"$/tap = "vipr-trunk"\nvlan = 10/
        s/^tap = "vipr-back"$/tap = "vipr-trunk"\nvlan = 20/
        s/^bridge = .*/bridge = "br-trunk"/' >"$config"
lab_vipr_start "$config"
listens() {
    bridge -n director mdb show dev br-vip | grep -q "port sw-front grp ff02::1:ff00:10 "
}
lab_wait 10 "the clients' bridge to know that vipr listens, by a tagged report" listens
# Until its first query has been answered a bridge passes everything on to everyone.
sleep 1.5
lab_capture trunk director vipr-trunk

lab_expect "answers by real server" "$(lab_requests 60 | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
lab_expect "the client's MAC for the VIP" "$(lab_client_arp "$VIP")" "$DIRECTOR_FRONT_MAC"
lab_expect "answers over IPv6" "$(lab_in client curl -sS --max-time 20 --connect-timeout 5 \
    -H 'Connection: close' "http://[$VIP6]/?[1-60]" | lab_tally)" "30 rs1, 20 rs2, 10 rs3"
lab_expect "the client's MAC for the VIP of IPv6" \
    "$(lab_in client ip -6 neigh show "$VIP6" dev front | sed -n 's/.* lladdr \([^ ]*\).*/\1/p')" \
    "$DIRECTOR_FRONT_MAC"
lab_expect "ping over IPv6" \
    "$(lab_in client ping -6 -c 2 -i 0.2 -W 2 -s 1400 "$VIP6" | grep -o '[0-9]* received')" "2 received"
head -c 3000000 /dev/urandom >"$LAB_DIR/upload"
for number in "${REAL_SERVERS[@]}"; do mkdir -p "$LAB_DIR/rs$number/www/upload"; done
lab_expect "a large upload (HTTP 201)" "$(lab_in client curl -sS --max-time 60 -o "$LAB_DIR/out" \
    -w '%{http_code}' -T "$LAB_DIR/upload" "http://$VIP/upload/file")" 201
lab_expect "what arrived" "$(cat "$LAB_DIR"/rs?/www/upload/file | cmp - "$LAB_DIR/upload" && echo whole)" whole
lab_capture_stop

lab_expect "frames to the VIP without a tag" \
    "$(($(lab_count trunk "ip dst $VIP") + $(lab_count trunk "ip src $VIP")))" 0
lab_expect "frames of IPv6 without a tag, but for the host's own" \
    "$(lab_count trunk "ip6 and (host $VIP6 or ether src $DIRECTOR_FRONT_MAC or ether src $DIRECTOR_BACK_MAC)")" 0
requests=$(lab_count trunk "vlan 10 and ip6 dst $VIP6 and tcp")
lab_expect "frames of IPv6 in with tag 10 and out with tag 20" \
    "$((requests > 100)) $(lab_count trunk "vlan 20 and ip6 dst $VIP6 and tcp")" "1 $requests"
lab_expect "solicitations answered with the tag they came with" \
    "$(($(lab_count trunk "vlan 10 and ether src $DIRECTOR_FRONT_MAC and icmp6 and ip6[40] = 136") > 0))" 1
requests=$(lab_count trunk "vlan 10 and ip dst $VIP")
forwarded=$(lab_count trunk "vlan 20 and ip dst $VIP")
lab_expect "frames in with tag 10 and out with tag 20" "$((requests > 100))" 1
lab_expect "as many out as in" "$forwarded" "$requests"
lab_expect "on the trunk's segments" \
    "$(lab_status '[.segments[] | .up and .mtu == 1500] | all')" true
lab_expect_balance

# Another VLAN for the clients: the switch does not know it, and nothing arrives any more.
dropped=$(lab_status '.counters.drops.vlan_unknown')
sed -i 's/^vlan = 10$/vlan = 11/' "$config"
lab_wait 5 "the other VLAN" lab_status_is .generation 2
lab_in client curl -sS --max-time 1 "http://$VIP/" 2>/dev/null && lab_fail "answered"
lab_expect "frames of an unknown VLAN are counted" \
    "$(($(lab_status '.counters.drops.vlan_unknown') > dropped))" 1
sed -i 's/^vlan = 11$/vlan = 10/' "$config"
lab_wait 5 "the VLAN to be back" lab_status_is .generation 3
lab_expect "and it goes on" "$(lab_requests 6 | sed 's/[123]$//' | sort -u)" rs
lab_expect_balance

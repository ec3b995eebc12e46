#!/usr/bin/env bash
# arp_guard on a bridge whose frames carry VLAN tags, with and without VLAN filtering: who claims the
# VIP from another port, by ARP or by ND, tagged or not, is not heard at the third one; all else is.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

# Two TAPs on the bridge: `frames.pl` sends a frame by one, given as hexadecimal digits, and prints
# what comes by the other, as long as the bridge takes.
cat >"$LAB_DIR/frames.pl" <<'PERL'
use strict;
use warnings;
use constant { TUNSETIFF => 0x400454ca, IFF_TAP => 2, IFF_NO_PI => 0x1000 };
sub tap {
    my ($name) = @_;
    open my $tap, '+<', '/dev/net/tun' or die "/dev/net/tun: $!";
    ioctl $tap, TUNSETIFF, pack 'a16 s x22', $name, IFF_TAP | IFF_NO_PI or die "$name: $!";
    return $tap;
}
my ($sender, $hearer) = (tap('sender'), tap('hearer'));
$| = 1;
print "ready\n";
while (my $line = <STDIN>) {
    chomp $line;
    syswrite $sender, pack 'H*', $line or die "write: $!";
    # A frame that nobody stops marks the end of those before it.
    syswrite $sender, pack 'H*', 'ffffffffffff' . '52540000aaaa' . '88b5' . '00' x 46;
    my $heard = '';
    while (1) {
        sysread $hearer, my $frame, 65_536 or die "read: $!";
        my $type = unpack 'x12 n', $frame;
        last if $type == 0x88b5;
        $heard .= unpack('H*', $frame) . "\n" if unpack('x6 H12', $frame) eq '52540000aaaa';
    }
    $heard =~ s/\n/ /g;
    print "heard $heard\n";
}
PERL

TAG="" SENDER=52540000aaaa
tag() { TAG=$1; }
# A frame of ARP: `arp OPERATION SENDER TARGET`, addresses as hexadecimal digits.
arp() {
    echo "ffffffffffff$SENDER${TAG}080600010800060400$1$SENDER${2}000000000000$3"
}
# A neighbour advertisement of a target to all nodes. Nobody on the way looks at its checksum.
advertisement() {
    echo "333300000001$SENDER${TAG}86dd6000000000183aff$RIP6_HEX${ALL_NODES_HEX}8800000020000000$1"
}
# From this sender's address, a solicitation.
solicitation() {
    echo "333300000001$SENDER${TAG}86dd6000000000183aff$1${ALL_NODES_HEX}8700000000000000$RIP6_HEX"
}
VIP_HEX=c000020a OTHER_HEX=c000024d
VIP6_HEX=20010db8000000010000000000000010
RIP6_HEX=20010db8000000010000000000000012
ALL_NODES_HEX=ff020000000000000000000000000001

# What is heard of a frame at the other port.
hear() {
    echo "$1" >&"${FRAMES[1]}"
    local heard
    read -r -t 10 heard <&"${FRAMES[0]}" || lab_fail "nothing is heard at all"
    heard=${heard#heard}
    echo "${heard// /}"
}
passes() {
    lab_expect "$MODE, $1: heard as it was sent" "$(hear "$2")" "$2"
}
is_stopped() {
    lab_expect "$MODE, $1: heard" "$(hear "$2")" ""
}
blocked() {
    lab_status '[.segments[] | select(.arp_guard) | .arp_guard.blocked][0]'
}

lab_up one-arm
coproc FRAMES { lab_exec director perl "$LAB_DIR/frames.pl" 2>"$LAB_DIR/frames.err"; }
read -r -t 10 ready <&"${FRAMES[0]}" || lab_fail "no TAPs: $(cat "$LAB_DIR/frames.err")"
[[ $ready == ready ]]
for port in sender hearer; do
    ip -n director link set "$port" master br-vip up
done

config=$LAB_DIR/vipr.toml
{
    sed 's|^bridge = "br-vip"|&\narp_guard = true|; s|^address = \["192.0.2.2/24"\]|address = ["192.0.2.2/24", "2001:db8:0:1::2/64"]|' "$(lab_config)"
    cat <<TOML
[[service]]
name = "six"
vip = "$VIP6"
protocol = "tcp"
ports = 80
[[service.real_server]]
name = "rs1"
address = "192.0.2.11"
TOML
} >"$config"

all_frames() {
    local before
    before=$(blocked)
    # From now on everybody knows who is who, and nothing is flooded for want of it.
    passes "an answer for another address" "$(arp 02 $OTHER_HEX $VIP_HEX)"
    is_stopped "an answer for the VIP" "$(arp 02 $VIP_HEX $OTHER_HEX)"
    is_stopped "an announcement of the VIP" "$(arp 01 $VIP_HEX $VIP_HEX)"
    lab_expect "$MODE, a question in the VIP's name: heard without the name" \
        "$(hear "$(arp 01 $VIP_HEX $OTHER_HEX)")" "$(arp 01 00000000 $OTHER_HEX)"
    passes "an advertisement of another address" "$(advertisement $RIP6_HEX)"
    is_stopped "an advertisement of the VIP" "$(advertisement $VIP6_HEX)"
    passes "a solicitation from another address" "$(solicitation $RIP6_HEX)"
    is_stopped "a solicitation from the VIP" "$(solicitation $VIP6_HEX)"
    lab_expect "$MODE: blocked" "$(($(blocked) - before))" 5
}

lab_vipr_start "$config"
lab_wait 10 "the guard" lab_status_is '[.segments[] | select(.arp_guard) | .arp_guard.active] | all' true
MODE="without a tag"
all_frames
MODE="with a tag"
tag 8100000a
all_frames
MODE="with the tag of priority"
tag 8100e000
all_frames
MODE="with a provider's tag"
tag 88a8000a
all_frames
# Within two tags is another network, where the same address is somebody else's.
MODE="with two tags"
tag 88a8000a8100000b
before=$(blocked)
passes "an answer for the VIP" "$(arp 02 $VIP_HEX $OTHER_HEX)"
passes "an advertisement of the VIP" "$(advertisement $VIP6_HEX)"
lab_expect "$MODE: blocked" "$(($(blocked) - before))" 0

# A trunk: segments that are VLANs of one TAP have one guard, which stays as long as one of them wants
# it.
guarded_segments() {
    lab_status '[.segments[] | select(.arp_guard.active) | .name] | join(" ")'
}
guards() {
    local generation
    generation=$(lab_status .generation)
    {
        sed "s/^role = \"both\"/role = \"both\"\nvlan = 10/; /^arp_guard/d; s/^bridge = \"br-vip\"/&\narp_guard = $1/
            s/^address = \"192/segment = \"front\"\n&/" "$config"
        printf '[segment.guests]\nrole = "vip"\ntap = "vipr-front"\nbridge = "br-vip"\nvlan = 20\n'
        echo "arp_guard = $2"
    } >"$config.new"
    mv "$config.new" "$LAB_DIR/trunk.toml"
    cp "$LAB_DIR/trunk.toml" "$LAB_DIR/running.toml"
    lab_wait 10 "the configuration to be in force" is_past "$generation"
}
is_past() {
    (($(lab_status .generation) > $1))
}
lab_vipr_stop
cp "$config" "$LAB_DIR/running.toml"
lab_vipr_start "$LAB_DIR/running.toml"
guards true true
lab_expect "a trunk: guarded" "$(guarded_segments)" "front guests"
MODE="a trunk, VLAN 10"
tag 8100000a
all_frames
MODE="a trunk, VLAN 20"
tag 81000014
all_frames
guards false true
lab_expect "one VLAN of it: guarded" "$(guarded_segments)" "guests"
is_stopped "an answer for the VIP" "$(arp 02 $VIP_HEX $OTHER_HEX)"
guards false false
lab_expect "none of it: guarded" "$(guarded_segments)" ""
passes "an answer for the VIP" "$(arp 02 $VIP_HEX $OTHER_HEX)"

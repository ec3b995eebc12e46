#!/usr/bin/env bash
# How soon the router answers ARP while it forwards half of what it can, all of it, and twice that,
# beside a kernel's answers on the same bridge. Times are the kernel's, at the client's card. At the
# end, for comparison, the router without its second look at the queue (it lacks CAP_NET_RAW).
#
#     vm/lab.sh run vm/bench-arp-load.sh [SECONDS [overload]]
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

SECONDS_EACH=${1:-4}
ROWS=${2:-all}
SINK_MAC=52:54:00:00:09:01

lab_up one-arm
lab_namespace sink
lab_cable sink front "$SINK_MAC" br-vip
config=$LAB_DIR/vipr.toml
{
    sed '/^\[\[service\]\]/,$d' "$(lab_config)"
    cat <<TOML
[[service]]
vip = "$VIP"
protocol = "udp"
ports = 5000
real_server = [{ name = "sink", address = "192.0.2.90", mac = "$SINK_MAC" }]
TOML
} >"$config"
lab_vipr_start "$config" any

# Frames for the service, so many a second (0: as fast as it goes), for so many seconds, spread over
# many flows; prints how many it sent.
cat >"$LAB_DIR/flood.pl" <<'PERL'
use strict; use warnings; use Time::HiRes qw(time);
my ($index, $rate, $seconds, $destination, $source, $vip, $client) = @ARGV;
socket(my $socket, 17, 3, 0) or die "socket: $!";
my $address = pack('S n i S C C x8', 17, 0x0800, $index, 0, 0, 0);
bind($socket, $address) or die "bind: $!";
my $mac = sub { pack('H12', $_[0] =~ s/://gr) };
my $ip = sub { pack('C4', split /\./, $_[0]) };
my @frames = map {
    my $udp = pack('n4', 10000 + $_, 5000, 26, 0) . ('x' x 18);
    my $header = pack('C C n n n C C n', 0x45, 0, 20 + length $udp, $_, 0, 64, 17, 0)
        . $ip->($client) . $ip->($vip);
    my $sum = unpack('%32n*', $header);
    $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
    substr($header, 10, 2) = pack('n', ~$sum & 0xffff);
    $mac->($destination) . $mac->($source) . pack('n', 0x0800) . $header . $udp;
} 0 .. 1023;
my ($start, $sent) = (time, 0);
while ((my $now = time) - $start < $seconds) {
    my $due = $rate ? int(($now - $start) * $rate) : $sent + 64;
    $due = $sent + 256 if $due > $sent + 256;
    while ($sent < $due) { send($socket, $frames[$sent & 1023], 0); $sent++ }
    select(undef, undef, undef, 0.0002) if $rate && $sent >= $due;
}
print "$sent\n";
PERL

# Asks by turns for the VIP and for a kernel's address, 500 times a second in all.
cat >"$LAB_DIR/ask.pl" <<'PERL'
use strict; use warnings;
my ($index, $seconds, $source, @targets) = @ARGV;
socket(my $socket, 17, 3, 0) or die "socket: $!";
bind($socket, pack('S n i S C C x8', 17, 0x0806, $index, 0, 0, 0)) or die "bind: $!";
my $mac = pack('H12', $source =~ s/://gr);
for my $number (0 .. $seconds * 500 - 1) {
    my $sender = pack('C4', 198, 18, 0, 1 + ($number >> 1) % 200);
    my $target = pack('C4', split /\./, $targets[$number & 1]);
    send($socket, "\xff" x 6 . $mac . pack('n n n C C n', 0x0806, 1, 0x0800, 6, 4, 1)
        . $mac . $sender . "\0" x 6 . $target, 0);
    select(undef, undef, undef, 0.002);
}
PERL

# What a capture says of one target: questions, answers, answers more than one to a question, and
# percentiles of the time between.
cat >"$LAB_DIR/times.pl" <<'PERL'
use strict; use warnings;
my ($path, $target) = @ARGV;
my $wanted = pack('C4', split /\./, $target);
open(my $file, '<:raw', $path) or die "$path: $!";
read($file, my $header, 24) == 24 or die "no capture";
my $unit = unpack('V', $header) == 0xa1b23c4d ? 1e-3 : 1;
my ($asked, $more, %open, @times) = (0, 0);
while (read($file, my $record, 16) == 16) {
    my ($seconds, $fraction, $length) = unpack('V V V', $record);
    read($file, my $frame, $length) == $length or last;
    next unless substr($frame, 12, 2) eq "\x08\x06";
    my ($operation, $sender, $receiver) = (unpack('n', substr($frame, 20, 2)),
        substr($frame, 28, 4), substr($frame, 38, 4));
    my $time = $seconds * 1e6 + $fraction * $unit;
    if ($operation == 1 && $receiver eq $wanted && $sender =~ /^\xc6\x12/) {
        $asked++;
        $open{$sender} = $time;
    } elsif ($operation == 2 && $sender eq $wanted && defined $open{$receiver}) {
        push @times, $time - delete $open{$receiver};
    } elsif ($operation == 2 && $sender eq $wanted && $receiver =~ /^\xc6\x12/) {
        $more++;
    }
}
@times = sort { $a <=> $b } @times;
my $at = sub { @times ? $times[$#times * $_[0]] : 0 };
printf "%6d %6d %5d %9.0f %9.0f %9.0f\n", $asked, scalar @times, $more, $at->(0.5), $at->(0.99), $at->(0.999);
PERL

# The index of the client's card.
CARD=$(ip -n client -o link show front | cut -d: -f1)

flood() {
    lab_in client perl "$LAB_DIR/flood.pl" "$CARD" "$1" "$2" "$DIRECTOR_FRONT_MAC" "$CLIENT_MAC" \
        "$VIP" "$CLIENT_IP"
}

forwarded() {
    lab_status .counters.forwarded
}

# One row: asks while so many frames a second come in.
measure() {
    local what=$1 rate=$2 flood=
    lab_capture "arp" client front arp
    if [[ $rate != none ]]; then
        flood "$rate" $((SECONDS_EACH + 2)) >"$LAB_DIR/flood" &
        flood=$!
        sleep 1
    fi
    lab_in client perl "$LAB_DIR/ask.pl" "$CARD" "$SECONDS_EACH" "$CLIENT_MAC" "$VIP" 192.0.2.11
    [[ -z $flood ]] || wait "$flood"
    sleep 0.2
    lab_capture_stop
    printf '%-22s vipr    %s\n' "$what" "$(perl "$LAB_DIR/times.pl" "$LAB_DIR/arp.pcap" "$VIP")"
    printf '%-22s kernel  %s\n' "" "$(perl "$LAB_DIR/times.pl" "$LAB_DIR/arp.pcap" 192.0.2.11)"
}

header() {
    printf '%-22s %-6s %7s %6s %5s %9s %9s %9s\n' load answers asked answ. more 'p50 µs' 'p99 µs' 'p99.9 µs'
}

if [[ $ROWS == all ]]; then
    before=$(forwarded)
    sent=$(flood 0 3)
    capacity=$((($(forwarded) - before) / 3))
    echo "sent $((sent / 3)) frames a second, forwarded $capacity: taken for what it can"
    header
    measure idle none
    measure "50 %" $((capacity / 2))
    measure "100 %" "$capacity"
    measure "200 %" $((capacity * 2))
else
    header
fi
measure "as fast as it goes" 0
lab_expect_balance
lab_vipr_stop

cat >"$LAB_DIR/vipr" <<SH
#!/bin/sh
exec setpriv --bounding-set -net_raw -- "$VIPR" "\$@"
SH
chmod +x "$LAB_DIR/vipr"
VIPR=$LAB_DIR/vipr
lab_vipr_start "$config" any
measure "without a second look" 0
lab_expect_balance

//! What each machine is told at its start: the commands that a person would give.

use std::fmt::Write as _;

use super::description::{Description, Hide, Topology, front_address};

/// The web server's configuration; `NAME` is what it answers.
const NGINX: &str = include_str!("nginx.conf");

/// A machine that asks.
pub fn client(address: &str) -> String {
    format!("set -e\nip address add {address}/24 dev eth0\nip link set eth0 up\n")
}

/// A real server: the VIP on lo, hidden from ARP, and a web server.
pub fn real_server(description: &Description, number: usize) -> String {
    let vip = description.service.vip;
    let two = description.topology == Topology::TwoSegments;
    let mut script = "set -e\n".to_owned();
    let mut say = |line: String| {
        script.push_str(&line);
        script.push('\n');
    };
    say(format!("ip address add {vip}/32 dev lo"));
    let server = &description.real_server[number - 1];
    let mut cards = vec![("eth0", front_address(number))];
    if two {
        cards.push(("eth1", description.rip(number)));
        // Requests come in by one card and replies leave by the other.
        say(
            "for f in all default eth0 eth1; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done"
                .to_owned(),
        );
    }
    for line in hide(server.hide, &vip.to_string(), &cards) {
        say(line);
    }
    for (card, address) in &cards {
        say(format!("ip address add {address}/24 dev {card}"));
        say(format!("ip link set {card} up"));
    }
    let nginx = NGINX.replace("NAME", &format!("rs{number}"));
    let _ = write!(
        script,
        "mkdir -p /tmp/www /tmp/log\n\
         dd if=/dev/zero of=/tmp/www/big bs=1M count=4 2>/dev/null\n\
         cat >/tmp/nginx.conf <<'NGINX'\n{nginx}NGINX\n\
         nginx -p /tmp -e /tmp/log/error.log -c /tmp/nginx.conf\n"
    );
    script
}

/// The commands by which a real server keeps from answering ARP for the VIP.
fn hide(how: Hide, vip: &str, cards: &[(&str, String)]) -> Vec<String> {
    match how {
        Hide::None => Vec::new(),
        Hide::Sysctl => vec![
            "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore".to_owned(),
            "echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce".to_owned(),
        ],
        Hide::Arptables => {
            let mut lines = vec![format!("arptables-legacy -A INPUT -d {vip} -j DROP")];
            lines.extend(cards.iter().map(|(card, address)| {
                format!(
                    "arptables-legacy -A OUTPUT -o {card} -s {vip} -j mangle --mangle-ip-s {address}"
                )
            }));
            lines
        }
        Hide::Nft => {
            let mut lines = vec![
                "nft add table arp vip".to_owned(),
                "nft add chain arp vip in '{ type filter hook input priority 0; }'".to_owned(),
                "nft add chain arp vip out '{ type filter hook output priority 0; }'".to_owned(),
                format!("nft add rule arp vip in arp daddr ip {vip} drop"),
            ];
            lines.extend(cards.iter().map(|(card, address)| {
                format!(
                    "nft add rule arp vip out oifname {card} arp saddr ip {vip} arp saddr ip set \
                     {address}"
                )
            }));
            lines
        }
    }
}

/// A director by the kernel's IPVS.
pub fn ipvs(description: &Description) -> String {
    let vip = description.service.vip;
    let mut script = format!(
        "set -e\n\
         ip address add 192.0.2.2/24 dev eth0\n\
         ip address add {vip}/32 dev eth0\n\
         ip link set eth0 up\n"
    );
    if description.topology == Topology::TwoSegments {
        script.push_str("ip address add 10.0.0.1/24 dev eth1\nip link set eth1 up\n");
    }
    script.push_str(
        "for f in all default eth0; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done\n",
    );
    script.push_str("echo 1 >/proc/sys/net/ipv4/ip_forward\n");
    let _ = writeln!(script, "ipvsadm -A -t {vip}:80 -s {}", description.service.scheduler);
    for (server, number) in description.real_server.iter().zip(1..) {
        let (rip, weight) = (description.rip(number), server.weight);
        let _ = writeln!(script, "ipvsadm -a -t {vip}:80 -r {rip}:80 -g -w {weight}");
    }
    script
}

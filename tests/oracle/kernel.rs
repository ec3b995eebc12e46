//! A trace through the kernel's IPVS, in a guest where nothing else goes on.
//!
//! The guest has two TAP devices; this program is the other end of both wires. What it writes
//! into the one comes in from the clients, what the kernel forwards it reads from the other. A
//! packet is known again by its IP identification, its real server by the destination MAC. Behind
//! each burst comes a packet that is routed past IPVS: when it is out, all before it are through.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use vipr::port::{Batch, Port, TapConfig, TapPort};
use vipr::wire::Offload;

use super::harness::frames::FrameBuilder;
use super::harness::frames6::Packet6;
use super::harness::{CLIENT_MAC, FRONT_MAC};
use super::record::{Check, Record};
use super::scenarios::{Changes, Scenario};
use super::trace::{FIN_WAIT_SECONDS, Family, Op, PAUSE, PORT, Packet, labelled, trace};

const BURST: usize = 32;
/// Real servers of a trace, over all its time.
const SERVERS_MAX: u8 = 70;
/// Of the packet that is routed past IPVS.
const MARK: u16 = 0xFFFF;
const PAST_IPVS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 250);
const PAST_IPVS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 0xfa);
/// Shorter than the shortest timeout that a trace meets without pauses (CLOSE).
const RUN_MAX: Duration = Duration::from_secs(9);
/// Between two pauses no connection may expire.
const BUSY_MAX: Duration = Duration::from_millis(1000 * FIN_WAIT_SECONDS as u64 - 200);
const TRIES_MAX: usize = 4;
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The kernel removes a connection whose port is used again with its next tick.
const SETTLE: Duration = Duration::from_millis(50);

/// Records every scenario, each in a network (and so a connection table) of its own. One that took
/// too long, on a machine that had other things to do, is tried again.
pub fn run_each() {
    let program = std::env::current_exe().expect("this program");
    for scenario in super::of_this_run() {
        let recorded = (0..TRIES_MAX).any(|_| {
            let status = Command::new("unshare")
                .arg("--net")
                .arg(&program)
                .args(["--ignored", "--exact", "in_the_guest", "--nocapture", "--quiet"])
                .env("ORACLE_SCENARIO", scenario.name)
                .status();
            status.is_ok_and(|status| status.success())
        });
        assert!(recorded, "{}: not recorded", scenario.name);
    }
}

pub fn record(scenario: &Scenario) -> Record {
    let mut guest = Guest::new(scenario);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's version");
    let mut record = Record::new(kernel.trim().to_owned());
    let mut burst: Vec<Packet> = Vec::new();
    let started = Instant::now();
    let (mut paused, mut busy_since) = (Duration::ZERO, started);
    for op in trace(scenario) {
        if let Op::Packet(packet) = op {
            burst.push(packet);
            if burst.len() < BURST {
                continue;
            }
        }
        guest.offer(&mut burst, &mut record);
        match op {
            Op::Packet(_) => {}
            Op::Check => record.check(&guest.check()),
            Op::Pause => {
                let busy = busy_since.elapsed();
                assert!(busy < BUSY_MAX, "{}: {busy:?} between two pauses", scenario.name);
                sleep(PAUSE);
                paused += PAUSE;
                busy_since = Instant::now();
            }
            other => guest.change(other),
        }
    }
    guest.offer(&mut burst, &mut record);
    let took = started.elapsed() - paused;
    println!("{}: {} packets in {took:.1?}", scenario.name, record.packets());
    assert!(took < RUN_MAX, "{}: connections may have timed out", scenario.name);
    record
}

struct Guest<'s> {
    scenario: &'s Scenario,
    front: TapPort,
    back: TapPort,
    batch: Batch,
    members: Vec<(u8, u32)>,
    ipvsadm: Ipvsadm,
}

impl Guest<'_> {
    fn new(scenario: &Scenario) -> Guest<'_> {
        let open = |tap| {
            TapPort::open(&TapConfig { tap, bridge: None, uplink: None, mtu: None })
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let (front, back) = (open("front"), open("back"));
        // The port keeps the host's IPv6 off its TAPs; here the host is who is asked.
        for device in ["front", "back"] {
            let key = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
            fs::write(&key, "0").expect(&key);
        }
        let front_mac = FRONT_MAC.to_string();
        for words in [
            &["link", "set", "lo", "up"][..],
            &["link", "set", "front", "address", &front_mac],
            &["address", "add", "192.0.2.2/24", "dev", "front"],
            &["address", "add", "10.0.0.1/24", "dev", "back"],
            &["route", "replace", "default", "via", "192.0.2.1", "dev", "front"],
            &["address", "add", "2001:db8:0:1::2/64", "dev", "front", "nodad"],
            &["address", "add", "2001:db8:0:2::1/64", "dev", "back", "nodad"],
            &["-6", "route", "replace", "default", "via", "2001:db8:0:1::1", "dev", "front"],
        ] {
            run("ip", words);
        }
        know_neighbors();
        for number in 0..scenario.vips {
            let vip = scenario.family.vip(number);
            let prefix = if vip.is_ipv4() { 32 } else { 128 };
            run("ip", &["address", "replace", &format!("{vip}/{prefix}"), "dev", "lo"]);
        }
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv6/conf/all/forwarding", "1"),
        ] {
            fs::write(format!("/proc/sys/net/{key}"), value).expect(key);
        }
        if scenario.pauses {
            run("ipvsadm", &["--set", "0", &FIN_WAIT_SECONDS.to_string(), "0"]);
        }
        let expire = scenario.changes == Changes::Members;
        fs::write("/proc/sys/net/ipv4/vs/conn_reuse_mode", "2").expect("conn_reuse_mode");
        fs::write("/proc/sys/net/ipv4/vs/expire_nodest_conn", if expire { "1" } else { "0" })
            .expect("expire_nodest_conn");
        let members = (0..).zip(scenario.weights.iter().copied()).collect();
        let ipvsadm = Ipvsadm::new();
        let batch = Batch::new(64);
        let mut guest = Guest { scenario, front, back, batch, members, ipvsadm };
        guest.make_services();
        guest
    }

    /// Real servers in reverse, for the kernel puts each new one first; then the scheduler, for
    /// some look at the list only when they are told of a change.
    fn make_services(&mut self) {
        let other = if self.scenario.scheduler == "rr" { "lc" } else { "rr" };
        let mut lines = String::new();
        for number in 0..self.scenario.vips {
            lines += &format!("-A {} -s {other}\n", self.service(number));
            for (server, weight) in self.members.iter().rev() {
                lines += &self.server_line("-a", number, *server, Some(*weight));
            }
            lines += &format!("-E {} -s {}", self.service(number), self.scenario.scheduler);
            if let Some((_, flags)) = self.scenario.options {
                lines += &format!(" -b {flags}");
            }
            if let Some((timeout, netmask)) = self.scenario.persistence {
                let mask = match self.scenario.family {
                    Family::V4 => Ipv4Addr::from_bits(u32::MAX << (32 - netmask)).to_string(),
                    Family::V6 => netmask.to_string(),
                };
                lines += &format!(" -p {timeout} -M {mask}");
            }
            lines.push('\n');
        }
        self.order(&lines);
    }

    /// Gives orders and waits until they are carried out.
    fn order(&mut self, lines: &str) {
        self.ipvsadm.order(lines);
        let mut expected = Vec::new();
        for number in 0..self.scenario.vips {
            let servers = self.members.iter();
            expected.extend(servers.map(|&(server, weight)| (number, server, weight)));
        }
        expected.sort_unstable();
        let started = Instant::now();
        while !self.is_configured(&expected) {
            assert!(started.elapsed() < ANSWER_MAX, "ipvsadm did not carry out:\n{lines}");
            yield_now();
        }
    }

    fn is_configured(&self, expected: &[(u8, u8, u32)]) -> bool {
        let mut schedulers = 0;
        let mut found: Vec<(u8, u8, u32)> = Vec::new();
        for line in table() {
            match line {
                Line::Service { scheduler } => {
                    schedulers += u8::from(scheduler == self.scenario.scheduler);
                }
                Line::Server { vip, server, weight, .. } => found.push((vip, server, weight)),
            }
        }
        found.sort_unstable();
        schedulers == self.scenario.vips && found == expected
    }

    fn service(&self, number: u8) -> String {
        let protocol = if self.scenario.udp { "-u" } else { "-t" };
        format!("{protocol} {}", at_port(self.scenario.family.vip(number)))
    }

    fn server_line(&self, order: &str, number: u8, server: u8, weight: Option<u32>) -> String {
        let service = self.service(number);
        let address = at_port(self.scenario.family.rip(server));
        match weight {
            Some(weight) => {
                let upper = self.scenario.upper_threshold(server);
                let lower = self.scenario.lower_threshold(server);
                format!("{order} {service} -r {address} -g -w {weight} -x {upper} -y {lower}\n")
            }
            None => format!("{order} {service} -r {address}\n"),
        }
    }

    fn change(&mut self, op: Op) {
        let (order, server, weight) = match op {
            Op::Weight { server, weight } => ("-e", server, Some(weight)),
            Op::Remove { server } => ("-d", server, None),
            Op::Add { server, weight } => ("-a", server, Some(weight)),
            Op::Packet(_) | Op::Check | Op::Pause => return,
        };
        match op {
            Op::Add { server, weight } => self.members.push((server, weight)),
            Op::Remove { server } => self.members.retain(|(member, _)| *member != server),
            Op::Weight { server, weight } => {
                for member in self.members.iter_mut().filter(|(member, _)| *member == server) {
                    member.1 = weight;
                }
            }
            Op::Packet(_) | Op::Check | Op::Pause => {}
        }
        let lines: String = (0..self.scenario.vips)
            .map(|number| self.server_line(order, number, server, weight))
            .collect();
        self.order(&lines);
    }

    /// Offers a burst and takes down what became of each packet.
    fn offer(&mut self, burst: &mut Vec<Packet>, record: &mut Record) {
        if burst.is_empty() {
            return;
        }
        for (number, packet) in (1..).zip(burst.iter()) {
            self.send(&packet.frame(self.scenario.family, number));
        }
        self.send(&mark(self.scenario.family));
        let mut chosen: HashMap<u16, u8> = HashMap::new();
        let started = Instant::now();
        let mut through = false;
        while !through {
            assert!(started.elapsed() < ANSWER_MAX, "the kernel forwards nothing");
            self.batch.clear();
            self.back.receive(&mut self.batch).expect("the TAP of the real servers");
            for frame in self.batch.iter().filter(|frame| frame.len() >= 34) {
                match number_of(frame, self.scenario.family) {
                    None => {}
                    Some(MARK) => through = true,
                    Some(known) => {
                        assert_eq!(chosen.insert(known, frame[5]), None, "forwarded twice");
                    }
                }
            }
            // Replies to clients; what they are does not matter.
            self.batch.clear();
            self.front.receive(&mut self.batch).expect("the TAP of the clients");
        }
        for number in 1..=burst.len() as u16 {
            record.push(chosen.get(&number).copied());
        }
        burst.clear();
    }

    fn send(&mut self, frame: &[u8]) {
        self.front.send(frame, Offload::default()).expect("the TAP of the clients");
    }

    fn check(&mut self) -> Check {
        sleep(SETTLE);
        let mut check = Check::default();
        for line in table() {
            if let Line::Server { vip, server, active, inactive, .. } = line {
                check.counts.insert((vip, server), (active, inactive));
            }
        }
        check.connections = self.connections(&check);
        check
    }

    /// The connections to members, as many as are counted.
    fn connections(&self, check: &Check) -> Vec<String> {
        let counted: u32 = check.counts.values().map(|(active, inactive)| active + inactive).sum();
        let mut found = BTreeSet::new();
        for len in (0..20).map(|reads| 700 + 331 * reads) {
            for line in lines_in_pieces("/proc/net/ip_vs_conn", len) {
                found.extend(self.connection(&line));
            }
            if found.len() == counted as usize {
                break;
            }
        }
        found.into_iter().collect()
    }

    fn connection(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["TCP" | "UDP", client, port, vip, _, to, _, state, ..] = words[..] else {
            return None;
        };
        let server = last_octet(address(to)).wrapping_sub(11);
        let is_member = self.members.iter().any(|(member, _)| *member == server);
        let port = u16::from_str_radix(port, 16).expect("a port");
        // Templates have none.
        let (client, vip) = (address(client), address(vip));
        (is_member && port != 0).then(|| format!("{client}:{port} {vip} {server} {state}"))
    }
}

/// The MACs of all stations there can be, so that none is asked for.
fn know_neighbors() {
    let neighbor = |address: IpAddr, mac: String, device: &str| {
        format!("neigh replace {address} lladdr {mac} nud permanent dev {device}\n")
    };
    let mut lines = neighbor(Ipv4Addr::new(192, 0, 2, 1).into(), CLIENT_MAC.to_string(), "front");
    let router6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
    lines += &neighbor(router6.into(), CLIENT_MAC.to_string(), "front");
    for past in [PAST_IPVS.into(), PAST_IPVS6.into()] {
        lines += &neighbor(past, "52:54:00:00:00:fa".to_owned(), "back");
    }
    for server in 0..SERVERS_MAX {
        for family in [Family::V4, Family::V6] {
            lines += &neighbor(family.rip(server), format!("52:54:00:00:00:{server:02x}"), "back");
        }
    }
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip is installed");
    ip.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip reads");
    assert!(ip.wait().expect("it ends").success(), "ip -batch:\n{lines}");
}

/// The packet that is routed past IPVS.
fn mark(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => {
            let from = Ipv4Addr::new(198, 51, 100, 1);
            let builder = FrameBuilder::new((CLIENT_MAC, from), (FRONT_MAC, PAST_IPVS));
            builder.identified(MARK).udp(9, 9, b"")
        }
        Family::V6 => {
            let (macs, source) =
                ((CLIENT_MAC, FRONT_MAC), Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7));
            let packet = Packet6 { macs, source, destination: PAST_IPVS6, hop_limit: 61 };
            labelled(MARK, packet.udp(9, 9, b""))
        }
    }
}

/// The number of a packet that came through. The guest has packets of its own in IPv6.
fn number_of(frame: &[u8], family: Family) -> Option<u16> {
    let at = match (family, [frame[12], frame[13]]) {
        (Family::V4, [0x08, 0x00]) => 18,
        (Family::V6, [0x86, 0xdd]) if matches!(frame[20], 6 | 17) => 16,
        _ => return None,
    };
    Some(u16::from_be_bytes([frame[at], frame[at + 1]]))
}

fn at_port(address: IpAddr) -> String {
    SocketAddr::new(address, PORT).to_string()
}

/// `C000020A:0050` or `[2001:0db8:…:000a]:0050`.
fn endpoint(text: &str) -> IpAddr {
    let (host, _port) = text.rsplit_once(':').expect("a port");
    address(host.trim_start_matches('[').trim_end_matches(']'))
}

fn address(text: &str) -> IpAddr {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => address.into(),
        Err(_) => Ipv4Addr::from_bits(u32::from_str_radix(text, 16).expect("hexadecimal")).into(),
    }
}

fn last_octet(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// The same in reads of this length: where one ends, the kernel forgets a connection at times.
fn lines_in_pieces(path: &str, len: usize) -> Vec<String> {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut text, mut piece) = (Vec::new(), vec![0; len]);
    loop {
        match file.read(&mut piece).unwrap_or_else(|error| panic!("{path}: {error}")) {
            0 => return String::from_utf8_lossy(&text).lines().map(str::to_owned).collect(),
            read => text.extend_from_slice(&piece[..read]),
        }
    }
}

fn lines_of(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(str::to_owned).collect()
}

fn run(program: &str, words: &[&str]) {
    let status = Command::new(program).args(words).status();
    assert!(
        status.as_ref().is_ok_and(|status| status.success()),
        "{program} {words:?}: {status:?}"
    );
}

/// A line of `/proc/net/ip_vs`.
enum Line {
    Service { scheduler: String },
    Server { vip: u8, server: u8, weight: u32, active: u32, inactive: u32 },
}

fn table() -> Vec<Line> {
    let number = |text: &str| text.parse().expect("a number");
    let mut service = 0;
    let mut table = Vec::new();
    for line in lines_of("/proc/net/ip_vs") {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["TCP" | "UDP", at, scheduler, ..] => {
                service = (last_octet(endpoint(at)) - 10) / 7;
                table.push(Line::Service { scheduler: scheduler.to_owned() });
            }
            // The heading does not.
            ["->", at, _, weight, active, inactive] if at.ends_with(&format!(":{PORT:04X}")) => {
                table.push(Line::Server {
                    vip: service,
                    server: last_octet(endpoint(at)) - 11,
                    weight: number(weight),
                    active: number(active),
                    inactive: number(inactive),
                });
            }
            _ => {}
        }
    }
    table
}

/// One that carries out orders as they come: to start it anew takes longer than many packets.
struct Ipvsadm {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Ipvsadm {
    fn new() -> Ipvsadm {
        let mut child = Command::new("ipvsadm")
            .arg("-R")
            .stdin(Stdio::piped())
            .spawn()
            .expect("ipvsadm is installed");
        let orders = child.stdin.take();
        Ipvsadm { child, orders }
    }

    fn order(&mut self, lines: &str) {
        let orders = self.orders.as_mut().expect("it runs");
        orders.write_all(lines.as_bytes()).expect("ipvsadm reads");
    }
}

impl Drop for Ipvsadm {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

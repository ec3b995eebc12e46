//! Random sequences of configurations, with traffic between them. Two oracles: no flow of a real
//! server that remains moves or is dropped; and what is left after any sequence is what a fresh
//! start with the last configuration gives.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use vipr::director::report::StatusReport;
use vipr::wire::MacAddr;

use crate::harness::frames::{Tcp, arp_request, tcp};
use crate::harness::{BACK_MAC, CLIENT, CLIENT_MAC, World};
use crate::random::Random;

const STEPS: usize = 40;

/// A configuration before it is written down.
#[derive(Clone, Debug, Default)]
struct Wanted {
    second_back: bool,
    drop_unmatched: bool,
    /// By VIP's last octet and ports.
    services: BTreeMap<(u8, &'static str), WantedService>,
}

#[derive(Clone, Debug)]
struct WantedService {
    scheduler: &'static str,
    persistent: bool,
    reset: bool,
    /// By the network they are in (0 or 1) and last octet: weight, MAC's last octet.
    servers: BTreeMap<(u8, u8), (u32, u8)>,
}

const PORTS: [&str; 4] = ["80", "[443, 8443]", "\"8000-8099\"", "\"any\""];
const SCHEDULERS: [&str; 6] = ["rr", "wrr", "lc", "wlc", "sh", "sed"];

impl Wanted {
    /// Changes one thing, or a few.
    fn mutate(&mut self, random: &mut Random) {
        for _ in 0..=random.below(3) {
            match random.below(12) {
                0 => self.second_back = !self.second_back,
                1 => self.drop_unmatched = !self.drop_unmatched,
                2 | 3 => {
                    let key = (10 + random.below(3) as u8, PORTS[random.below(4) as usize]);
                    if self.services.remove(&key).is_none() {
                        self.services.insert(key, WantedService::new(random));
                    }
                }
                4 => {
                    if let Some(service) = self.any(random) {
                        service.scheduler = SCHEDULERS[random.below(6) as usize];
                    }
                }
                5 => {
                    if let Some(service) = self.any(random) {
                        service.persistent = !service.persistent;
                    }
                }
                6 => {
                    if let Some(service) = self.any(random) {
                        service.reset = !service.reset;
                    }
                }
                _ => {
                    if let Some(service) = self.any(random) {
                        service.mutate_server(random);
                    }
                }
            }
        }
        if !self.second_back {
            for service in self.services.values_mut() {
                service.servers.retain(|&(network, _), _| network == 0);
            }
        }
        self.agree_on_macs();
    }

    fn any(&mut self, random: &mut Random) -> Option<&mut WantedService> {
        let count = self.services.len() as u64;
        if count == 0 {
            return None;
        }
        self.services.values_mut().nth(random.below(count) as usize)
    }

    /// One real server has one MAC, whichever service names it.
    fn agree_on_macs(&mut self) {
        let mut macs = BTreeMap::new();
        for service in self.services.values_mut() {
            for (&key, (_, mac)) in &mut service.servers {
                *mac = *macs.entry(key).or_insert(*mac);
            }
        }
    }

    fn toml(&self) -> String {
        let unmatched = if self.drop_unmatched { "drop" } else { "reject" };
        let mut text =
            format!("[router]\nunmatched = \"{unmatched}\"\n{}", crate::harness::SEGMENTS);
        if self.second_back {
            text += "[segment.back2]\nrole = \"backend\"\ntap = \"back2\"\nmac = \"02:00:00:00:01:03\"\n";
        }
        for ((vip, ports), service) in &self.services {
            let WantedService { scheduler, persistent, reset, .. } = service;
            let on_removal = if *reset { "reset" } else { "drain" };
            let _ = write!(
                text,
                "[[service]]\nvip = \"192.0.2.{vip}\"\nprotocol = \"tcp\"\nports = {ports}\n\
                 scheduler = \"{scheduler}\"\non_removal = \"{on_removal}\"\n"
            );
            if *persistent {
                text += "persistence = { timeout = \"5m\", netmask = 32 }\n";
            }
            for ((network, last), (weight, mac)) in &service.servers {
                let segment = if *network == 0 { "back" } else { "back2" };
                let _ = write!(
                    text,
                    "[[service.real_server]]\naddress = \"10.{network}.0.{last}\"\n\
                     segment = \"{segment}\"\nweight = {weight}\n\
                     mac = \"52:54:00:0{network}:{mac:02x}:{last:02x}\"\n"
                );
            }
        }
        text
    }
}

impl WantedService {
    fn new(random: &mut Random) -> WantedService {
        let mut service = WantedService {
            scheduler: SCHEDULERS[random.below(6) as usize],
            persistent: random.per_mille(300),
            reset: random.per_mille(300),
            servers: BTreeMap::new(),
        };
        for _ in 0..random.below(5) {
            service.mutate_server(random);
        }
        service
    }

    fn mutate_server(&mut self, random: &mut Random) {
        let key = (random.below(4) as u8 / 3, 11 + random.below(5) as u8);
        let weight = random.below(4) as u32;
        match (self.servers.get_mut(&key), random.below(3)) {
            (None, _) => {
                self.servers.insert(key, (weight, 0));
            }
            (Some(_), 0) => {
                self.servers.remove(&key);
            }
            (Some(server), 1) => server.0 = weight,
            (Some(server), _) => server.1 = random.below(4) as u8,
        }
    }
}

/// What a flow is entitled to.
#[derive(Clone, Debug)]
struct Flow {
    service: (u8, &'static str),
    /// The destination port, by which it is known to be the service's.
    port: u16,
    server: (u8, u8),
    /// Ended by `on_removal = "reset"`.
    ended: bool,
}

struct Run {
    seed: u64,
    random: Random,
    world: World,
    wanted: Wanted,
    flows: BTreeMap<u16, Flow>,
    next_port: u16,
}

impl Run {
    fn new(seed: u64) -> Run {
        let wanted = Wanted::default();
        Run {
            seed,
            random: Random::new(seed),
            world: World::new(&wanted.toml()),
            wanted,
            flows: BTreeMap::new(),
            next_port: 1024,
        }
    }

    fn reload(&mut self) {
        let before = self.wanted.clone();
        self.wanted.mutate(&mut self.random);
        let next = crate::harness::snapshot(&self.wanted.toml());
        // Half of the time as the router does it, sharing what is the same.
        let next = if self.random.per_mille(500) {
            let mut shared = (*next).clone();
            shared.share(self.world.director.snapshot());
            shared.into()
        } else {
            next
        };
        self.world.director.apply(self.world.now, next);
        for flow in self.flows.values_mut() {
            let remains = self
                .wanted
                .services
                .get(&flow.service)
                .is_some_and(|service| service.servers.contains_key(&flow.server));
            if remains {
                continue;
            }
            // Who removed it decides: the service as it is now, or as it was last.
            let service = self.wanted.services.get(&flow.service);
            let service = service.or_else(|| before.services.get(&flow.service));
            flow.ended |= service.is_some_and(|service| service.reset) && {
                let had = before.services.get(&flow.service);
                had.is_some_and(|service| service.servers.contains_key(&flow.server))
            };
        }
        // What is swept at once is swept before anything else is seen.
        if self.random.per_mille(500) {
            self.world.advance(Duration::ZERO);
            self.flows.retain(|_, flow| !flow.ended);
        }
    }

    fn open_flow(&mut self) {
        let services = self.wanted.services.len() as u64;
        if services == 0 {
            return;
        }
        let at = self.random.below(services) as usize;
        let &(vip, ports) = self.wanted.services.keys().nth(at).unwrap();
        let destination_port = match ports {
            "80" => 80,
            "[443, 8443]" => 8443,
            "\"8000-8099\"" => 8010,
            _ => 25,
        };
        let source_port = self.next_port;
        self.next_port += 1;
        let segment = |flags| {
            let destination = [192, 0, 2, vip];
            Tcp { destination, destination_port, ..tcp(source_port, flags) }.bytes()
        };
        self.world.take_sent();
        let told = self.world.tell("front", &segment("S"));
        let Some(name) = told.strip_prefix("forwarded ") else { return };
        let octets: Vec<u8> = name.split('.').map(|octet| octet.parse().unwrap()).collect();
        let server = (octets[1], octets[3]);
        let chosen = &self.wanted.services[&(vip, ports)].servers;
        let (weight, _) =
            chosen.get(&server).unwrap_or_else(|| panic!("seed {}: {name}", self.seed));
        let persistent = self.wanted.services[&(vip, ports)].persistent;
        assert!(*weight > 0 || persistent, "seed {}: {name} is quiesced", self.seed);
        self.check_macs(server);
        assert_eq!(self.world.tell("front", &segment("A")), told, "seed {}", self.seed);
        let service = (vip, ports);
        let flow = Flow { service, port: destination_port, server, ended: false };
        self.flows.insert(source_port, flow);
    }

    /// The last frame went to a real server's MAC as configured now.
    fn check_macs(&mut self, server: (u8, u8)) {
        let sent = self.world.take_sent();
        let bytes = &sent.last().unwrap().bytes;
        let configured = self
            .wanted
            .services
            .values()
            .find_map(|service| service.servers.get(&server))
            .map(|&(_, mac)| MacAddr([0x52, 0x54, 0, server.0, mac, server.1]));
        if let Some(mac) = configured {
            assert_eq!(bytes[..6], mac.0, "seed {}", self.seed);
        }
    }

    fn continue_flow(&mut self) {
        let count = self.flows.len() as u64;
        if count == 0 {
            return;
        }
        let at = self.random.below(count) as usize;
        let (&source_port, flow) = self.flows.iter().nth(at).unwrap();
        let flow = flow.clone();
        let destination = [192, 0, 2, flow.service.0];
        let segment = Tcp { destination, destination_port: flow.port, ..tcp(source_port, "A") };
        self.world.take_sent();
        let told = self.world.tell("front", &segment.bytes());
        let name = format!("10.{}.0.{}", flow.server.0, flow.server.1);
        let way = flow.server.0 == 0 || self.wanted.second_back;
        if flow.ended {
            assert!(!told.starts_with("forwarded"), "seed {}: {told} after a reset", self.seed);
            self.flows.remove(&source_port);
        } else if way {
            assert_eq!(told, format!("forwarded {name}"), "seed {}: {flow:?}", self.seed);
            self.check_macs(flow.server);
        } else {
            assert_eq!(told, format!("dropped segment_gone {name}"), "seed {}", self.seed);
        }
    }

    /// When all connections are over, nothing tells this director from a fresh one.
    fn compare_with_a_fresh_start(mut self) {
        self.world.advance(Duration::from_secs(2000));
        assert_eq!(self.world.connections(), [], "seed {}", self.seed);
        let mut fresh = World::new(&self.wanted.toml());
        assert_eq!(shape(self.world.status()), shape(fresh.status()), "seed {}", self.seed);
        self.world.take_sent();
        fresh.take_sent();
        for frame in probes() {
            let (old, new) = (self.world.tell("front", &frame), fresh.tell("front", &frame));
            // Schedulers' cursors may stand elsewhere: who is chosen may differ, not what is done.
            let what = |told: &str| told.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            let what = |told: &str| {
                if told.starts_with("forwarded") { "forwarded".to_owned() } else { what(told) }
            };
            assert_eq!(what(&old), what(&new), "seed {}: {frame:02x?}", self.seed);
            let replies = |world: &mut World| {
                let sent = world.take_sent();
                sent.into_iter().filter(|sent| sent.segment == "front").collect::<Vec<_>>()
            };
            assert_eq!(replies(&mut self.world), replies(&mut fresh), "seed {}", self.seed);
        }
    }
}

/// ARP for every address in question, SYNs to every VIP and port, and frames sent back by every
/// MAC that a real server may have.
fn probes() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for last in [2, 10, 11, 12, 13] {
        frames.push(arp_request(CLIENT_MAC, CLIENT, [192, 0, 2, last]));
        let mut unicast = arp_request(CLIENT_MAC, CLIENT, [192, 0, 2, last]);
        unicast[..6].copy_from_slice(&crate::harness::FRONT_MAC.0);
        frames.push(unicast);
        for destination_port in [25, 80, 443, 8443, 8000, 8099, 8100] {
            let destination = [192, 0, 2, last];
            frames.push(Tcp { destination, destination_port, ..tcp(999, "S") }.bytes());
        }
    }
    for (network, mac, last) in (0..2)
        .flat_map(|n| (0..4).map(move |m| (n, m)))
        .flat_map(|(n, m)| (11..16).map(move |last| (n, m, last)))
    {
        let source_mac = MacAddr([0x52, 0x54, 0, network, mac, last]);
        frames.push(Tcp { source_mac, destination_port: 80, ..tcp(998, "S") }.bytes());
    }
    frames.push(Tcp { source_mac: BACK_MAC, ..tcp(997, "S") }.bytes());
    frames
}

/// What of a status does not depend on the past.
fn shape(mut status: StatusReport) -> StatusReport {
    status.generation = 0;
    status.uptime_seconds = 0;
    status.connections.evicted = 0;
    status.guardian = Default::default();
    status.counters.drops.values_mut().for_each(|count| *count = 0);
    let counters = &mut status.counters;
    (counters.received, counters.forwarded, counters.replied) = (0, 0, 0);
    (counters.consumed, counters.held, counters.dropped) = (0, 0, 0);
    for segment in &mut status.segments {
        (segment.received_frames, segment.received_bytes) = (0, 0);
        (segment.sent_frames, segment.sent_bytes) = (0, 0);
    }
    for service in &mut status.services {
        service.traffic = Default::default();
        service.rates = Default::default();
        for server in &mut service.real_servers {
            server.traffic = Default::default();
            server.rates = Default::default();
        }
    }
    status
}

#[test]
fn no_flow_of_a_real_server_that_remains_moves_and_no_trace_of_the_past_remains() {
    for seed in crate::seeds() {
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            run.reload();
            for _ in 0..6 {
                run.open_flow();
            }
            for _ in 0..20 {
                run.continue_flow();
            }
        }
        run.compare_with_a_fresh_start();
    }
}

//! The segments, what is under way on them, and the clock.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use vipr::director::report::StatusReport;
use vipr::director::{Action, Command, Director, Instant, Limits, Response};
use vipr::wire::{Frame, MacAddr};

use crate::family::{self, Family};
use crate::harness::{SEGMENTS, snapshot};
use crate::oracles::{Group, Oracles};
use crate::random::Random;
use crate::stations::{Client, Heard, RealServer, Station, read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    TwoSegments,
    OneArm,
}

/// What the director is for, and what changes on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Three real servers.
    Web,
    /// Two ports as one service, with persistence, a quorum and a sorry server (number
    /// [`SORRY`]).
    Group,
    /// As `Web`, and checked: what is in `[service.check]`.
    Checked(&'static str),
}

impl Purpose {
    fn check(self) -> &'static str {
        match self {
            Purpose::Checked(check) => check,
            Purpose::Web | Purpose::Group => "",
        }
    }
}

/// The sorry server's number.
pub const SORRY: u8 = 4;
pub const QUORUM: u64 = 4;
pub const QUORUM_HYSTERESIS: u64 = 1;

/// What links do to frames, in thousandths, and how long they take at most.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub loss: u64,
    pub repetition: u64,
    pub delay_max_us: u64,
}

impl Faults {
    pub const NONE: Faults = Faults { loss: 0, repetition: 0, delay_max_us: 1 };
    /// Frames that are long under way, so that flows are.
    pub const SLOW: Faults = Faults { loss: 0, repetition: 0, delay_max_us: 200_000 };
    pub const BAD: Faults = Faults { loss: 80, repetition: 60, delay_max_us: 20_000 };
}

/// Who is attached where: a segment, and a plug on its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Plug {
    pub segment: &'static str,
    pub number: usize,
}

/// The director's plug on every segment.
const DIRECTOR: usize = 0;

enum Happening {
    /// A frame reaches a plug.
    Arrival { plug: Plug, bytes: Vec<u8> },
    /// A station asked to be woken.
    Wake { station: usize },
    /// A client begins a flow.
    Open { station: usize },
    /// A person gives a real server another weight.
    Weigh { number: u8, weight: u32 },
}

pub struct Lan {
    pub seed: u64,
    now: Instant,
    random: Random,
    faults: Faults,
    topology: Topology,
    family: Family,
    purpose: Purpose,
    director: Director,
    stations: Vec<Station>,
    plugs: BTreeMap<Plug, usize>,
    /// What each switch has learnt.
    learnt: HashMap<(&'static str, MacAddr), usize>,
    agenda: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    oracles: Oracles,
    digest: DefaultHasher,
}

impl Lan {
    pub fn new(seed: u64, topology: Topology, faults: Faults) -> Lan {
        Lan::of(Family::V4, seed, topology, faults)
    }

    pub fn of(family: Family, seed: u64, topology: Topology, faults: Faults) -> Lan {
        Lan::with(Purpose::Web, family, seed, topology, faults)
    }

    pub fn with(
        purpose: Purpose,
        family: Family,
        seed: u64,
        topology: Topology,
        faults: Faults,
    ) -> Lan {
        let now = Instant::from_nanos(1_000_000_000);
        let (front, back) = match topology {
            Topology::TwoSegments => ("front", "back"),
            Topology::OneArm => ("lan", "lan"),
        };
        let configuration = configuration(purpose, topology, family);
        let director = Director::new(now, snapshot(&configuration), Limits::default(), seed);
        let mut lan = Lan {
            seed,
            now,
            random: Random::new(seed),
            faults,
            topology,
            family,
            purpose,
            director,
            stations: Vec::new(),
            plugs: BTreeMap::new(),
            learnt: HashMap::new(),
            agenda: BTreeMap::new(),
            sequence: 0,
            oracles: Oracles::default(),
            digest: DefaultHasher::new(),
        };
        lan.oracles.checks = !purpose.check().is_empty();
        let (servers, ports): (u8, &[u16]) = match purpose {
            Purpose::Web | Purpose::Checked(_) => (3, &[80]),
            Purpose::Group => (SORRY, &[80, 443]),
        };
        for number in 1..=servers {
            lan.attach(Station::RealServer(RealServer::new(number, front, back)));
        }
        for number in 1..=3 {
            lan.attach(Station::Client(Client::new(number, front, ports)));
        }
        lan
    }

    /// Lets the clients begin so many flows, at random within this time.
    pub fn open_flows(&mut self, count: usize, within: Duration) {
        let clients: Vec<usize> = (0..self.stations.len())
            .filter(|&station| matches!(self.stations[station], Station::Client(_)))
            .collect();
        for _ in 0..count {
            let station = clients[self.random.below(clients.len() as u64) as usize];
            let after = Duration::from_nanos(self.random.below(within.as_nanos() as u64));
            self.put(after, Happening::Open { station });
        }
    }

    /// Lets somebody change so many weights, at random within this time.
    pub fn change_weights(&mut self, count: usize, within: Duration) {
        for _ in 0..count {
            let (number, weight) = (1 + self.random.below(3) as u8, self.random.below(4) as u32);
            let after = Duration::from_nanos(self.random.below(within.as_nanos() as u64));
            self.put(after, Happening::Weigh { number, weight });
        }
    }

    /// What became of flows where there is a quorum and a group.
    pub fn group(&self) -> &Group {
        &self.oracles.group
    }

    /// From now on this real server answers ARP for the VIP.
    pub fn leak(&mut self, number: u8) {
        self.oracles.leak = true;
        for station in &mut self.stations {
            if let Station::RealServer(server) = station {
                server.leaks |= server.number == number;
            }
        }
    }

    /// From now on this real server serves, or does not: it is there, but says nothing at the VIP.
    pub fn set_serving(&mut self, number: u8, serves: bool) {
        for station in &mut self.stations {
            if let Station::RealServer(server) = station
                && server.number == number
            {
                server.serves = serves;
            }
        }
    }

    /// The real servers that are down by their checks.
    pub fn down(&mut self) -> Vec<String> {
        let real_servers = self.status().services.into_iter().flat_map(|found| found.real_servers);
        let down =
            real_servers.filter(|found| found.check.as_ref().is_some_and(|check| !check.healthy));
        down.map(|found| found.name).collect()
    }

    /// How many flows have gone to a real server.
    pub fn flows_of(&self, number: u8) -> usize {
        self.oracles.flows_by_server().get(&number).copied().unwrap_or(0)
    }

    /// Frames that told a single station who has the VIP.
    pub fn told(&self) -> usize {
        self.oracles.told
    }

    /// What the director says about itself.
    pub fn status(&mut self) -> StatusReport {
        match self.director.handle_command(self.now, Command::Status) {
            Response::Status(report) => *report,
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    /// From now on the links are good.
    pub fn heal(&mut self) {
        self.faults = Faults::NONE;
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        // Far more than happens; a loop in the LAN would never end.
        for _ in 0..2_000_000 {
            let happening = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let timeout = self.director.poll_timeout();
            let Some(next) = happening.into_iter().chain(timeout).min() else { break };
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            if timeout.is_some_and(|at| at <= self.now) {
                self.director.handle_timeout(self.now);
                self.drain_director(None);
                self.look_at_the_quorum();
            } else if let Some((_, happening)) = self.agenda.pop_first() {
                self.happen(happening);
            }
        }
        panic!("seed {}: the LAN does not come to rest", self.seed);
    }

    /// The director is gone for a while; frames to it are lost. The one that comes after it takes
    /// up what it left, or not.
    pub fn restart(&mut self, down: Duration, takes_up: bool) {
        let mut records = Vec::new();
        let Ok(()) = self.director.export::<Infallible>(self.now, |record| {
            records.push(record.clone());
            Ok(())
        });
        let back = self.now + down;
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= back) {
            self.now = self.now.max(entry.key().0);
            match entry.remove() {
                Happening::Arrival { plug, .. } if plug.number == DIRECTOR => {}
                happening => self.happen(happening),
            }
        }
        self.now = back;
        let snapshot = snapshot(&configuration(self.purpose, self.topology, self.family));
        self.director = Director::new(self.now, snapshot, Limits::default(), self.seed + 1);
        if takes_up {
            let mut import = self.director.import(self.now, down);
            records.into_iter().for_each(|record| import.take(record));
            let imported = import.finish();
            assert_eq!(imported.dropped.invalid, 0, "seed {}: {imported:?}", self.seed);
            assert_eq!(imported.dropped.unconfigured, 0, "seed {}: {imported:?}", self.seed);
        }
    }

    /// Flows that got their answer and were closed.
    pub fn finished(&self) -> usize {
        self.stations
            .iter()
            .map(|station| match station {
                Station::Client(client) => client.finished,
                Station::RealServer(_) => 0,
            })
            .sum()
    }

    /// What holds when everything is over.
    pub fn check_at_the_end(&self) {
        let counters = self.director.counters();
        assert!(counters.balance(), "seed {}: {counters:?}", self.seed);
        assert_eq!(counters.held, 0, "seed {}: nothing is held for ever", self.seed);
    }

    /// wrr gives each real server its share of the flows, exactly.
    pub fn check_spread(&mut self) {
        let shares = self.oracles.flows_by_server();
        let total: usize = shares.values().sum();
        for (number, weight) in [(1u8, 3), (2, 2), (3, 1)] {
            let share = shares.get(&number).copied().unwrap_or(0);
            let expected = total * weight / 6;
            assert!(
                share.abs_diff(expected) <= 1,
                "seed {}: real server {number} has {share} of {total}",
                self.seed
            );
        }
    }

    /// Everything the director sent, in order, as a number.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    fn attach(&mut self, mut station: Station) {
        let index = self.stations.len();
        for segment in station.segments() {
            let number = 1 + self.plugs.keys().filter(|plug| plug.segment == segment).count();
            let plug = Plug { segment, number };
            self.plugs.insert(plug, index);
            station.plug_in(plug);
        }
        self.stations.push(station);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrival { plug, bytes } if plug.number == DIRECTOR => {
                self.offer_to_director(plug.segment, bytes);
            }
            Happening::Arrival { plug, bytes } => {
                let index = self.plugs[&plug];
                self.oracles.arrived(self.seed, &self.stations[index], plug, &bytes);
                let now = self.now;
                let reactions = self.stations[index].hear(now, plug, &bytes);
                self.follow(index, reactions);
            }
            Happening::Wake { station } => {
                let now = self.now;
                let reactions = self.stations[station].wake(now);
                self.follow(station, reactions);
            }
            Happening::Weigh { number, weight } => {
                let (service, real_server) = ("web".to_owned(), format!("rs{number}"));
                let command = Command::Weight { service, real_server, weight: Some(weight) };
                self.director.handle_command(self.now, command);
                self.drain_director(None);
                self.look_at_the_quorum();
            }
            Happening::Open { station } => {
                let now = self.now;
                let Station::Client(client) = &mut self.stations[station] else { return };
                let reactions = client.open(now);
                self.follow(station, reactions);
            }
        }
    }

    fn follow(&mut self, station: usize, reactions: Reactions) {
        for (plug, bytes) in reactions.frames {
            match self.family {
                Family::V4 => self.send(plug, &bytes),
                Family::V6 => self.send(plug, &family::translate(&bytes)),
            }
        }
        if let Some(after) = reactions.wake_after {
            self.put(after, Happening::Wake { station });
        }
    }

    fn offer_to_director(&mut self, segment: &'static str, bytes: Vec<u8>) {
        let segments = self.director.segments();
        let (ingress, _) = segments.iter().find(|(_, name)| &**name == segment).unwrap();
        let down = match read(&bytes) {
            Heard::Tcp(tcp) if self.oracles.checks && tcp.flags == "S" => self.down(),
            _ => Vec::new(),
        };
        let mut rewritten = bytes.clone();
        let mut frame = Frame::plain(&mut rewritten);
        let verdict = self.director.handle_frame(self.now, *ingress, &mut frame);
        assert!(self.director.counters().balance(), "seed {}", self.seed);
        if matches!(verdict.action, Action::Forward { .. } | Action::Hold)
            && let Some(name) = verdict.real_server
            && let Some(name) = self.director.real_server_name(name)
        {
            self.oracles.given(self.seed, &bytes, name, &down);
        }
        match verdict.action {
            Action::Forward { egress } => {
                let egress = self.segment(egress);
                self.oracles.forwarded(self.seed, &bytes, &rewritten);
                rewritten.hash(&mut self.digest);
                self.send(Plug { segment: egress, number: DIRECTOR }, &rewritten);
            }
            Action::Hold => self.oracles.held(&bytes),
            _ => assert_eq!(bytes, rewritten, "seed {}: left alone", self.seed),
        }
        if self.purpose == Purpose::Group {
            let to = verdict.real_server.and_then(|id| self.director.real_server_name(id));
            let to = to.map(|name| name[2..].parse().expect("rsN"));
            self.oracles.group.judged(self.seed, &bytes, &verdict.action, to);
        }
        self.drain_director(Some(&bytes));
        self.look_at_the_quorum();
    }

    /// After all that happens to the director: there may be a quorum now, or none.
    fn look_at_the_quorum(&mut self) {
        if self.purpose == Purpose::Group {
            let status = self.status();
            self.oracles.group.look(&status.services[0]);
        }
    }

    /// Sends what the director has to send, having judged `cause` if anything.
    fn drain_director(&mut self, cause: Option<&[u8]>) {
        while let Some(transmit) = self.director.poll_transmit() {
            let (egress, bytes) = (transmit.egress, transmit.bytes.to_vec());
            let segment = self.segment(egress);
            self.oracles.sent(self.seed, segment, &bytes, cause);
            bytes.hash(&mut self.digest);
            self.send(Plug { segment, number: DIRECTOR }, &bytes);
        }
        while self.director.poll_event().is_some() {}
    }

    fn segment(&self, id: vipr::director::SegmentId) -> &'static str {
        let name = self.director.segment_name(id).unwrap();
        ["front", "back", "lan"].into_iter().find(|known| *known == &**name).unwrap()
    }

    /// A frame enters a switch: to the plug of its destination, or to all others.
    fn send(&mut self, from: Plug, bytes: &[u8]) {
        let mac = |at: usize| MacAddr(bytes[at..at + 6].try_into().unwrap());
        self.learnt.insert((from.segment, mac(6)), from.number);
        let to: Vec<usize> = match self.learnt.get(&(from.segment, mac(0))) {
            Some(&number) if !mac(0).is_multicast() => vec![number],
            _ => {
                let stations = self.plugs.keys().filter(|plug| plug.segment == from.segment);
                std::iter::once(DIRECTOR).chain(stations.map(|plug| plug.number)).collect()
            }
        };
        for number in to.into_iter().filter(|&number| number != from.number) {
            let plug = Plug { segment: from.segment, number };
            if self.random.per_mille(self.faults.loss) {
                continue;
            }
            let copies = 1 + usize::from(self.random.per_mille(self.faults.repetition));
            for _ in 0..copies {
                let delay = 1 + self.random.below(self.faults.delay_max_us);
                let bytes = bytes.to_vec();
                self.put(Duration::from_micros(delay), Happening::Arrival { plug, bytes });
            }
        }
    }

    fn put(&mut self, after: Duration, happening: Happening) {
        self.agenda.insert((self.now + after, self.sequence), happening);
        self.sequence += 1;
    }
}

/// What a station does: frames through its plugs, and when it wants to be woken.
#[derive(Default)]
pub struct Reactions {
    pub frames: Vec<(Plug, Vec<u8>)>,
    pub wake_after: Option<Duration>,
}

fn configuration(purpose: Purpose, topology: Topology, family: Family) -> String {
    let (segments, back) = match topology {
        Topology::TwoSegments => (SEGMENTS.to_owned(), "back"),
        Topology::OneArm => (
            "[segment.lan]\nrole = \"both\"\ntap = \"vipr-lan\"\nmac = \"02:00:00:00:01:01\"\n\
             address = [\"10.0.0.1/24\"]\n"
                .to_owned(),
            "lan",
        ),
    };
    let servers: String = [(1, 3), (2, 2), (3, 1)]
        .into_iter()
        .map(|(number, weight)| {
            format!(
                "[[service.real_server]]\nname = \"rs{number}\"\naddress = \"10.0.0.1{number}\"\n\
                 segment = \"{back}\"\nweight = {weight}\n"
            )
        })
        .collect();
    let endpoint = "vip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80";
    let more = match purpose {
        Purpose::Web | Purpose::Checked(_) => endpoint.to_owned(),
        Purpose::Group => format!(
            "listen = [{{ vip = \"192.0.2.10\", protocol = \"tcp\", ports = [80, 443] }}]\n\
             persistence = {{ timeout = \"5m\" }}\nquorum = {QUORUM}\n\
             quorum_hysteresis = {QUORUM_HYSTERESIS}\n\
             sorry_server.name = \"rs{SORRY}\"\n\
             sorry_server.address = \"10.0.0.1{SORRY}\"\nsorry_server.segment = \"{back}\""
        ),
    };
    let check = purpose.check();
    let configuration = format!(
        "{segments}\n[[service]]\nname = \"web\"\n{more}\nscheduler = \"wrr\"\n{check}{servers}"
    );
    match family {
        Family::V4 => configuration,
        Family::V6 => family::configuration(&configuration),
    }
}

//! `vipr doctor`: every real server is asked, over the path that clients' packets take, whatever
//! can go wrong with direct routing.
//!
//! In three rounds, each as long as its answers take and no longer than a few seconds: who answers
//! for which address; what works over IP; and where something does not, what exactly. What the
//! answers mean is told by [`diagnosis`].

mod diagnosis;
mod report;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::report::{ExaminationReport, ExaminedReport, Finding, Item, Verdict};
use super::destination::DestinationId;
use super::instant::Instant;
use super::neighbors::NeighborId;
use super::probes::datagram::Exchange;
use super::probes::{Dialogue, Fault, Outcome, Owner, Question, Stage};
use super::{Director, SegmentId};
use crate::config::check::{CheckKind, UdpCheck};
use crate::config::snapshot::{Ports, Protocol};
use crate::wire::MacAddr;

/// Real servers of services in one examination.
const EXAMINED_MAX: usize = 512;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_millis(600);
/// ARP is asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// How long stations have to answer ARP.
const HEARING: Duration = Duration::from_millis(700);
/// Of a question without an answer, so many attempts.
const ATTEMPTS: u8 = 2;
/// Questions put at a time.
const ASKING_MAX: usize = 256;
/// Lengths of packets that are tried where the segment's own does not pass.
const LENGTHS: [u16; 10] = [1492, 1480, 1476, 1450, 1420, 1400, 1300, 1280, 1006, 576];

/// What is asked of one real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Probe {
    /// The service at the VIP, at the RIP, and at the VIP from an address among the clients'.
    Service,
    ServiceAtRip,
    ServiceForClients,
    /// An echo by the VIP, by the RIP, and by the VIP in a packet as large as the segment carries.
    EchoAtVip,
    EchoAtRip,
    FullSize,
    /// An echo by the VIP in a packet of the length with this number.
    Length(u8),
}

/// A real server of a service under examination.
struct Subject {
    destination: DestinationId,
    neighbor: NeighborId,
    service: Arc<str>,
    name: Arc<str>,
    vip: IpAddr,
    address: IpAddr,
    segment: SegmentId,
    protocol: Protocol,
    /// The port that is asked, if the service has one.
    port: Option<u16>,
    /// What to say to it over UDP, if that is known.
    exchange: Option<CheckKind>,
    /// The MAC that is asked, once it is known.
    mac: Option<MacAddr>,
    results: BTreeMap<Probe, Result<Duration, Fault>>,
}

/// Who answered for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    segment: SegmentId,
    address: IpAddr,
    mac: MacAddr,
    /// Whether it had been asked of that MAC alone.
    by_unicast: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// ARP by broadcast; once more at this time.
    Hearing {
        again: Option<Instant>,
        until: Instant,
    },
    /// Of RIPs with one MAC: whether it is one machine.
    Pairing {
        until: Instant,
    },
    /// Over IP.
    Asking,
    /// Packets of several lengths.
    Measuring,
    Done,
}

/// An examination: at most one at a time, the last one kept.
pub(super) struct Examination {
    subjects: Vec<Subject>,
    answers: Vec<Answer>,
    round: Round,
    /// Questions to be put: of which subject, what, and which attempt.
    to_ask: Vec<(u32, Probe, u8)>,
    /// Those under way, by their numbers.
    asking: BTreeMap<u32, (u32, Probe, u8)>,
    next_number: u32,
}

impl Examination {
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.round {
            Round::Hearing { again, until } => Some(again.unwrap_or(until)),
            Round::Pairing { until } => Some(until),
            // Whatever is asked has its own time; what is not is asked at once.
            Round::Asking | Round::Measuring => (self.asking.len() < ASKING_MAX
                && !self.to_ask.is_empty()
                || self.asking.is_empty())
            .then_some(Instant::ZERO),
            Round::Done => None,
        }
    }

    /// The MACs that answered for an address on a segment, each once.
    fn macs(&self, segment: SegmentId, address: IpAddr) -> Vec<MacAddr> {
        let found = self.answers.iter().filter(|answer| {
            answer.segment == segment && answer.address == address && !answer.by_unicast
        });
        let mut macs: Vec<MacAddr> = found.map(|answer| answer.mac).collect();
        macs.sort_unstable();
        macs.dedup();
        macs
    }
}

impl Director {
    /// Begins an examination of one real server, of a service's, or of all; `None` for a service
    /// is all of them.
    ///
    /// # Errors
    /// A line that says why not.
    pub(super) fn examine(
        &mut self,
        now: Instant,
        service: Option<&str>,
        real_server: Option<&str>,
    ) -> Result<ExaminationReport, String> {
        if self.examination.as_ref().is_some_and(|known| known.round != Round::Done) {
            return Err("an examination is under way".to_owned());
        }
        let wanted = self.examined(service, real_server)?;
        let subjects: Vec<Subject> = wanted.into_iter().filter_map(|id| self.subject(id)).collect();
        self.examination = Some(Examination {
            subjects,
            answers: Vec::new(),
            round: Round::Hearing { again: Some(now + ASK_AGAIN_AFTER), until: now + HEARING },
            to_ask: Vec::new(),
            asking: BTreeMap::new(),
            next_number: 0,
        });
        self.ask_who_answers();
        Ok(self.examination_report(now))
    }

    /// What the last examination has found so far.
    pub(super) fn examination_report(&self, now: Instant) -> ExaminationReport {
        match &self.examination {
            Some(examination) => self.diagnose(now, examination),
            None => ExaminationReport {
                running: false,
                real_servers: Vec::new(),
                strangers: Vec::new(),
            },
        }
    }

    fn examined(
        &self,
        service: Option<&str>,
        real_server: Option<&str>,
    ) -> Result<Vec<DestinationId>, String> {
        if let (Some(service), Some(real_server)) = (service, real_server) {
            let (id, _) = self.services.find_by_name(service, real_server, false)?;
            return Ok(vec![id]);
        }
        let configured =
            self.services.order.iter().filter_map(|&id| self.services.services.get(id));
        let of_name = |known: &&super::services::Service| {
            service
                .is_none_or(|name| *known.config.name == *name || known.config.endpoint() == name)
        };
        let found: Vec<_> = configured.filter(of_name).collect();
        if let (Some(name), true) = (service, found.is_empty()) {
            return Err(format!("no service {name}"));
        }
        let all: Vec<DestinationId> =
            found.iter().flat_map(|service| service.destinations.iter().copied()).collect();
        if all.len() > EXAMINED_MAX {
            return Err(format!(
                "{} real servers, and at most {EXAMINED_MAX} are examined at a time: name a service",
                all.len()
            ));
        }
        Ok(all)
    }

    fn subject(&self, id: DestinationId) -> Option<Subject> {
        let found = self.services.destinations.get(id)?;
        let config = &self.services.services.get(found.service)?.config;
        let check = config.check.as_ref();
        // What is checked, if anything is; else the first that it listens on.
        let asked = check.filter(|check| check.kind.has_port());
        let first = config.first();
        let (vip, protocol) = match asked {
            Some(check) => (check.vip, check.kind.protocol().unwrap_or(first.protocol)),
            None => (first.vip, first.protocol),
        };
        let port = match (&first.ports, asked) {
            (_, Some(check)) => Some(check.port),
            (Ports::Some(ranges), None) => ranges.first().map(|range| range.first),
            (Ports::Any, None) => None,
        };
        Some(Subject {
            destination: id,
            neighbor: found.neighbor,
            service: Arc::clone(&config.name),
            name: Arc::clone(&found.name),
            vip,
            address: found.address,
            segment: found.segment,
            protocol,
            port,
            exchange: check.map(|check| check.kind.clone()),
            mac: None,
            results: BTreeMap::new(),
        })
    }

    /// Asks, on every segment, for every RIP, and on those of clients for every VIP.
    fn ask_who_answers(&mut self) {
        let Some(examination) = &self.examination else { return };
        let mut wanted: Vec<(SegmentId, IpAddr)> = Vec::new();
        for subject in &examination.subjects {
            for (segment, known) in self.segments.iter() {
                wanted.push((segment, subject.address));
                if known.role.has_vips() {
                    wanted.push((segment, subject.vip));
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        for (segment, address) in wanted {
            self.ask_for(segment, address, None);
        }
    }

    /// A station has said that an address is at its MAC.
    pub(super) fn heard_for_examination(
        &mut self,
        segment: SegmentId,
        address: IpAddr,
        mac: MacAddr,
    ) {
        let Some(examination) = &mut self.examination else { return };
        let by_unicast = match examination.round {
            Round::Done => return,
            Round::Pairing { .. } => true,
            _ => false,
        };
        let of_interest = |subject: &Subject| subject.address == address || subject.vip == address;
        if !examination.subjects.iter().any(of_interest) {
            return;
        }
        let answer = Answer { segment, address, mac, by_unicast };
        // As many as there can be: four a real server.
        if examination.answers.len() < 8 * EXAMINED_MAX && !examination.answers.contains(&answer) {
            examination.answers.push(answer);
        }
    }

    /// Goes on with an examination.
    pub(super) fn run_examination(&mut self, now: Instant) {
        let Some(examination) = &mut self.examination else { return };
        match examination.round {
            Round::Hearing { again: Some(at), until } if at <= now => {
                examination.round = Round::Hearing { again: None, until };
                self.ask_who_answers();
            }
            Round::Hearing { again: None, until } if until <= now => self.begin_pairing(now),
            Round::Pairing { until } if until <= now => self.begin_asking(),
            Round::Asking | Round::Measuring => self.go_on_asking(now),
            _ => {}
        }
    }

    /// Two RIPs at one MAC: one machine, or two of which one has the other's MAC. The second is
    /// asked of the machine that has just answered for the first: bridges know no other way.
    fn begin_pairing(&mut self, now: Instant) {
        let Some(examination) = &mut self.examination else { return };
        let mut first: BTreeMap<(SegmentId, MacAddr), IpAddr> = BTreeMap::new();
        let mut pairs = Vec::new();
        for subject in &examination.subjects {
            for mac in examination.macs(subject.segment, subject.address) {
                let known = *first.entry((subject.segment, mac)).or_insert(subject.address);
                if known != subject.address {
                    pairs.push((subject.segment, mac, known, subject.address));
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let wait = if pairs.is_empty() { Duration::ZERO } else { ANSWER_MAX };
        examination.round = Round::Pairing { until: now + wait };
        for (segment, mac, known, other) in pairs {
            self.ask_for(segment, known, None);
            self.ask_for(segment, known, Some(mac));
            self.ask_for(segment, other, Some(mac));
        }
    }

    fn begin_asking(&mut self) {
        let Some(mut examination) = self.examination.take() else { return };
        for (index, subject) in examination.subjects.iter().enumerate() {
            let mac = self.mac_of(&examination, subject);
            if mac.is_none() {
                continue;
            }
            let mut probes = vec![Probe::EchoAtVip, Probe::EchoAtRip, Probe::FullSize];
            if subject.port.is_some() && subject.protocol != Protocol::Sctp {
                probes.extend([Probe::Service, Probe::ServiceAtRip, Probe::ServiceForClients]);
            }
            examination.to_ask.extend(probes.into_iter().map(|probe| (index as u32, probe, 0)));
        }
        for index in 0..examination.subjects.len() {
            let mac = self.mac_of(&examination, &examination.subjects[index]);
            examination.subjects[index].mac = mac;
        }
        examination.round = Round::Asking;
        self.examination = Some(examination);
    }

    /// The MAC that packets for a real server go to: where the router sends them, else where it
    /// was found now.
    fn mac_of(&self, examination: &Examination, subject: &Subject) -> Option<MacAddr> {
        let neighbor = self.neighbors.get(subject.neighbor);
        let configured = neighbor.and_then(|found| found.configured_mac());
        let heard = examination.macs(subject.segment, subject.address).first().copied();
        configured.or(heard)
    }

    fn go_on_asking(&mut self, now: Instant) {
        let Some(mut examination) = self.examination.take() else { return };
        while examination.asking.len() < ASKING_MAX
            && let Some((index, probe, attempt)) = examination.to_ask.pop()
        {
            let number = examination.next_number;
            examination.next_number = number.wrapping_add(1);
            let subject = &examination.subjects[index as usize];
            match self.put(now, number, subject, probe) {
                Some(()) => {
                    examination.asking.insert(number, (index, probe, attempt));
                }
                None => {
                    let result = Err(Fault::NoSource);
                    examination.subjects[index as usize].results.insert(probe, result);
                }
            }
        }
        if examination.asking.is_empty() && examination.to_ask.is_empty() {
            examination.round = match examination.round {
                Round::Asking => {
                    measure(&mut examination);
                    Round::Measuring
                }
                _ => Round::Done,
            };
        }
        self.examination = Some(examination);
    }

    /// Puts a question; `None` where the director has no address to ask from.
    fn put(&mut self, now: Instant, number: u32, subject: &Subject, probe: Probe) -> Option<()> {
        let mac = subject.mac?;
        let destination = match probe {
            Probe::ServiceAtRip | Probe::EchoAtRip => subject.address,
            _ => subject.vip,
        };
        let mut target = self.target(subject.segment, mac, destination)?;
        if probe == Probe::ServiceForClients {
            target.source = self.address_among_clients(subject.vip)?;
        }
        let question = match probe {
            Probe::Service | Probe::ServiceAtRip | Probe::ServiceForClients => {
                service_question(subject)?
            }
            Probe::EchoAtVip | Probe::EchoAtRip => Question::Echo { len: 84 },
            Probe::FullSize => Question::Echo { len: target.mtu },
            Probe::Length(number) => Question::Echo { len: *LENGTHS.get(usize::from(number))? },
        };
        let owner = Owner::Examination(number);
        self.prober.ask(now, owner, target, question, ANSWER_MAX, &mut self.transmit)?;
        Some(())
    }

    /// The director's own address on a segment of clients.
    pub(super) fn address_among_clients(&self, vip: IpAddr) -> Option<IpAddr> {
        let mut of_clients = self.segments.iter().filter(|(_, segment)| segment.role.has_vips());
        of_clients.find_map(|(_, segment)| segment.source_towards(vip))
    }

    pub(super) fn conclude_examination(&mut self, number: u32, outcome: Outcome) {
        let Some(examination) = &mut self.examination else { return };
        let Some((index, probe, attempt)) = examination.asking.remove(&number) else { return };
        let is_silence = matches!(outcome.result, Err(Fault::NoAnswer(Stage::Asked)));
        if is_silence && attempt + 1 < ATTEMPTS && !matches!(probe, Probe::Length(_)) {
            examination.to_ask.push((index, probe, attempt + 1));
            return;
        }
        let Some(subject) = examination.subjects.get_mut(index as usize) else { return };
        subject.results.insert(probe, outcome.result.map(|()| outcome.latency));
    }
}

/// Where small packets pass and those of full size do not: how large they may be.
fn measure(examination: &mut Examination) {
    for (index, subject) in examination.subjects.iter().enumerate() {
        let passed = |probe| matches!(subject.results.get(&probe), Some(Ok(_)));
        if passed(Probe::EchoAtVip) && !passed(Probe::FullSize) {
            let lengths = (0..LENGTHS.len() as u8).map(Probe::Length);
            examination.to_ask.extend(lengths.map(|probe| (index as u32, probe, 0)));
        }
    }
}

/// What is asked of the service itself.
fn service_question(subject: &Subject) -> Option<Question> {
    let port = subject.port?;
    Some(match (subject.protocol, &subject.exchange) {
        (Protocol::Tcp, _) => Question::Tcp { port, dialogue: Dialogue::Handshake },
        (Protocol::Udp, Some(CheckKind::Dns(dns))) => {
            Question::Udp { port, exchange: Exchange::Dns(dns.clone()) }
        }
        (Protocol::Udp, Some(CheckKind::Udp(udp))) => {
            Question::Udp { port, exchange: Exchange::Udp(udp.clone()) }
        }
        (Protocol::Udp, _) => {
            let empty = UdpCheck { send: Arc::new([]), expect: None };
            Question::Udp { port, exchange: Exchange::Udp(empty) }
        }
        (Protocol::Sctp, _) => return None,
    })
}

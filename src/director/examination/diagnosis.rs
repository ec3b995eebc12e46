//! From what answered and what did not to what is wrong, and what to do about it.

use core::net::IpAddr;
use core::time::Duration;

use super::super::instant::Instant;
use super::super::probes::Fault;
use super::super::probes::fault::IcmpError;
use super::super::{Director, SegmentId};
use super::{
    Examination, ExaminationReport, ExaminedReport, Finding, Item, LENGTHS, Probe, Round, Subject,
    Verdict,
};
use crate::config::check::CheckKind;
use crate::config::format_duration;
use crate::config::snapshot::Protocol;
use crate::wire::MacAddr;

/// A dead real server that gets connections for longer than this is a fault.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// On the real server: requests may come by another card than answers leave by.
const RP_FILTER_REMEDY: &str = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 2 >$f; done";

/// On the real server: silence about the VIP.
const ARP_REMEDY: &str =
    "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";

/// What a real server is like, as far as its packets tell.
struct Signs<'s> {
    subject: &'s Subject,
}

impl Signs<'_> {
    fn of(&self, probe: Probe) -> Option<&Result<Duration, Fault>> {
        self.subject.results.get(&probe)
    }

    fn works(&self, probe: Probe) -> bool {
        matches!(self.of(probe), Some(Ok(_)))
    }

    /// Whether there was any answer, a refusal among them.
    fn answers(&self, probe: Probe) -> bool {
        !matches!(self.of(probe), None | Some(Err(Fault::NoAnswer(_) | Fault::NoSource)))
    }
}

impl Director {
    pub(super) fn diagnose(&self, now: Instant, examination: &Examination) -> ExaminationReport {
        let running = examination.round != Round::Done;
        let strangers = if running { Vec::new() } else { self.strangers(examination) };
        let real_servers = examination
            .subjects
            .iter()
            .map(|subject| ExaminedReport {
                service: subject.service.to_string(),
                vip: subject.vip,
                real_server: subject.name.to_string(),
                address: subject.address,
                segment: self.segment_label(subject.segment).to_string(),
                findings: if running {
                    Vec::new()
                } else {
                    self.findings(now, examination, subject)
                },
            })
            .collect();
        ExaminationReport { running, real_servers, strangers }
    }

    fn findings(&self, now: Instant, examination: &Examination, subject: &Subject) -> Vec<Finding> {
        let signs = Signs { subject };
        let neighbor = self.neighbor_finding(examination, subject);
        let is_found = neighbor.verdict == Verdict::Fine;
        let mut findings = vec![neighbor, self.hidden_finding(examination, subject)];
        // Packets that go astray say nothing about where they should have gone.
        if is_found && subject.mac.is_some() {
            let vip = vip_finding(&signs);
            let has_vip = vip.verdict == Verdict::Fine;
            findings.push(vip);
            if has_vip {
                let service = service_finding(&signs);
                let serves = service.verdict == Verdict::Fine;
                findings.push(service);
                if serves {
                    findings.push(self.clients_finding(&signs));
                }
                findings.push(self.mtu_finding(&signs));
            }
        }
        findings.push(self.checks_finding(now, subject));
        findings
    }

    /// Whether the RIP is answered for, on its segment, by one MAC, and by the configured one.
    fn neighbor_finding(&self, examination: &Examination, subject: &Subject) -> Finding {
        let (address, segment) = (subject.address, self.segment_label(subject.segment));
        let macs = examination.macs(subject.segment, address);
        let neighbor = self.neighbors.get(subject.neighbor);
        let configured = neighbor.and_then(|found| found.configured_mac());
        let cards = self.services.destinations.get(subject.destination);
        let is_card = |mac: &MacAddr| cards.is_some_and(|found| found.vip_macs.contains(mac));
        let mut main: Vec<MacAddr> = macs.iter().copied().filter(|mac| !is_card(mac)).collect();
        if main.is_empty() {
            // Among clients it has been known by this card only.
            main = macs;
        }
        match (main.as_slice(), configured) {
            ([], _) => self.silent_finding(examination, subject),
            ([mac], Some(configured)) if *mac != configured => fault(
                Item::Neighbor,
                format!("{address} is at {mac}, not at {configured} as configured"),
                [format!("in the configuration: mac = \"{mac}\", or no mac at all")],
            ),
            ([mac], _) => match self.shared_with(examination, subject, *mac) {
                Some(other) => fault(
                    Item::Neighbor,
                    format!("{address} and {other} are two machines with one MAC, {mac}"),
                    ["give one of the two a MAC of its own: \
                      ip link set dev DEVICE address 02:XX:XX:XX:XX:XX"
                        .to_owned()],
                ),
                None => fine(Item::Neighbor, format!("{address} answers at {mac}")),
            },
            (several, _) => {
                let several: Vec<String> = several.iter().map(MacAddr::to_string).collect();
                fault(
                    Item::Neighbor,
                    format!("{address} is answered for by {}", several.join(" and ")),
                    [
                        format!("two machines have {address} on segment {segment}: change one"),
                        format!(
                            "or it is one machine with two cards there: {}name the second card in \
                             vip_mac",
                            if address.is_ipv4() {
                                "sysctl -w net.ipv4.conf.all.arp_ignore=1, or "
                            } else {
                                ""
                            }
                        ),
                    ],
                )
            }
        }
    }

    /// Nobody answers for the RIP on its segment.
    fn silent_finding(&self, examination: &Examination, subject: &Subject) -> Finding {
        let (address, segment) = (subject.address, self.segment_label(subject.segment));
        let elsewhere = examination
            .answers
            .iter()
            .find(|answer| answer.address == address && answer.segment != subject.segment);
        match elsewhere {
            Some(answer) => {
                let other = self.segment_label(answer.segment);
                let known = self.segments.get(answer.segment);
                let may_have = known.is_some_and(|known| known.role.has_real_servers());
                let role = if may_have { "" } else { ", and for that segment role = \"both\"" };
                fault(
                    Item::Neighbor,
                    format!("{address} answers on segment {other}, not on {segment}"),
                    [
                        format!("in the configuration: segment = \"{other}\"{role}"),
                        format!("or connect it to segment {segment}"),
                    ],
                )
            }
            None => fault(
                Item::Neighbor,
                format!("no answer for {address} on segment {segment}"),
                [
                    "it is off, or on another network: look at its cable, port and VLAN".to_owned(),
                    format!("on it: ip address show to {address}; ip link set dev DEVICE up"),
                ],
            ),
        }
    }

    /// Another machine's RIP with the same MAC, if it is another machine's.
    fn shared_with(
        &self,
        examination: &Examination,
        subject: &Subject,
        mac: MacAddr,
    ) -> Option<IpAddr> {
        let has = |address: IpAddr, by_unicast: bool| {
            examination.answers.iter().any(|answer| {
                (answer.segment, answer.address) == (subject.segment, address)
                    && answer.mac == mac
                    && answer.by_unicast == by_unicast
            })
        };
        let mut others = examination.subjects.iter().filter(|other| {
            other.segment == subject.segment
                && other.address != subject.address
                && has(other.address, false)
        });
        // The machine was asked for both at once, and answered for one of them only.
        others
            .find(|other| has(other.address, true) != has(subject.address, true))
            .map(|other| other.address)
    }

    /// Whether the real server claims the VIP before clients.
    fn hidden_finding(&self, examination: &Examination, subject: &Subject) -> Finding {
        let claim = self.claims(examination, subject.vip).find(|(segment, mac)| {
            self.owner_of(examination, *segment, *mac) == Some(subject.address)
        });
        let vip = subject.vip;
        match claim {
            Some((segment, mac)) => {
                let segment = self.segment_label(segment);
                let what = if vip.is_ipv4() { "ARP" } else { "neighbor solicitations" };
                let remedy = if vip.is_ipv4() {
                    vec![
                        ARP_REMEDY.to_owned(),
                        format!("and have {vip} on lo only: ip address show to {vip}"),
                    ]
                } else {
                    vec![lo_only(vip)]
                };
                fault(
                    Item::Hidden,
                    format!("answers {what} for {vip} on segment {segment}, from {mac}"),
                    remedy,
                )
            }
            None => fine(Item::Hidden, format!("does not claim {vip}")),
        }
    }

    /// Who claimed a VIP on segments of clients.
    fn claims<'e>(
        &'e self,
        examination: &'e Examination,
        vip: IpAddr,
    ) -> impl Iterator<Item = (SegmentId, MacAddr)> + 'e {
        let on_front = |id| self.segments.get(id).is_some_and(|segment| segment.role.has_vips());
        let answers = examination.answers.iter();
        answers
            .filter(move |answer| answer.address == vip && on_front(answer.segment))
            .map(|answer| (answer.segment, answer.mac))
    }

    /// The RIP of the real server with this card, as far as one is known to have it.
    fn owner_of(
        &self,
        examination: &Examination,
        segment: SegmentId,
        mac: MacAddr,
    ) -> Option<IpAddr> {
        let answered = examination.answers.iter().find(|answer| {
            answer.mac == mac
                && examination.subjects.iter().any(|subject| subject.address == answer.address)
        });
        let _ = segment;
        answered.map(|answer| answer.address).or_else(|| {
            let known = self
                .services
                .destinations
                .iter()
                .find(|(_, found)| found.mac == Some(mac) || found.vip_macs.contains(&mac));
            known.map(|(_, found)| found.address)
        })
    }

    /// Claims to VIPs by nobody that is known.
    fn strangers(&self, examination: &Examination) -> Vec<Finding> {
        let mut vips: Vec<IpAddr> =
            examination.subjects.iter().map(|subject| subject.vip).collect();
        vips.sort_unstable();
        vips.dedup();
        let mut findings = Vec::new();
        for vip in vips {
            for (segment, mac) in self.claims(examination, vip) {
                if self.owner_of(examination, segment, mac).is_none() {
                    let segment = self.segment_label(segment);
                    findings.push(fault(
                        Item::Hidden,
                        format!(
                            "{vip} is claimed on segment {segment} by {mac}, which is no \
                                 card of a real server that is known"
                        ),
                        [
                            format!(
                                "if it is a real server's: its card in vip_mac, and on it {}",
                                if vip.is_ipv4() { ARP_REMEDY.to_owned() } else { lo_only(vip) }
                            ),
                            "else another machine has the address: another router?".to_owned(),
                        ],
                    ));
                }
            }
        }
        findings
    }

    /// Whether the service answers those who ask from among the clients.
    fn clients_finding(&self, signs: &Signs<'_>) -> Finding {
        let vip = signs.subject.vip;
        let from = self.address_among_clients(vip);
        match (signs.of(Probe::ServiceForClients), from) {
            (Some(Ok(_)), Some(from)) => {
                fine(Item::Clients, format!("answers {from} as it would a client"))
            }
            (Some(Err(Fault::NoAnswer(_))), Some(from)) => {
                let route =
                    format!("ip route get {from} from {vip}, and if that fails: a default route");
                let (what, filter) = match vip {
                    IpAddr::V4(_) => ("reverse path filter", RP_FILTER_REMEDY),
                    // It has no such setting in IPv6; a rule of a firewall does the same.
                    IpAddr::V6(_) => {
                        ("firewall", "nft list ruleset: does a rule ask `fib saddr . iif`?")
                    }
                };
                fault(
                    Item::Clients,
                    format!(
                        "does not answer {from}, though it does answer on its own segment: its \
                         {what} drops requests that do not come the way answers go, or it has no \
                         route to the clients"
                    ),
                    [filter.to_owned(), route],
                )
            }
            (Some(Err(Fault::NoSource)) | None, _) | (_, None) => untested(
                Item::Clients,
                "the director has no address of its own among the clients to ask from".to_owned(),
            ),
            (Some(Err(other)), Some(from)) => fault(
                Item::Clients,
                format!("for {from}: {other}"),
                ["nft list ruleset; ip route get (the client)".to_owned()],
            ),
        }
    }

    /// Whether packets as large as the segment carries arrive.
    fn mtu_finding(&self, signs: &Signs<'_>) -> Finding {
        let mtu = self.segments.get(signs.subject.segment).map_or(0, |segment| segment.mtu());
        if !signs.works(Probe::EchoAtVip) {
            return untested(Item::Mtu, "it does not answer ping".to_owned());
        }
        if signs.works(Probe::FullSize) {
            return fine(Item::Mtu, format!("takes packets of {mtu} bytes"));
        }
        let passed = (0..LENGTHS.len())
            .filter(|&number| signs.works(Probe::Length(number as u8)))
            .map(|number| LENGTHS[number])
            .max();
        let segment = self.segment_label(signs.subject.segment);
        let told = match signs.of(Probe::FullSize) {
            Some(Err(Fault::Unreachable { by, error: IcmpError::TooBig(told) })) => {
                Some((by, *told))
            }
            _ => None,
        };
        if let Some((by, told)) = told {
            // Whoever is in between says so itself; where it does not say what fits, it is measured.
            let fits = Some(told).filter(|&told| told > 0).or(passed);
            let fits_text = fits.map_or_else(String::new, |len| format!(", those of {len} do"));
            return fault(
                Item::Mtu,
                format!(
                    "packets of {mtu} bytes do not fit through {by} on the way to it{fits_text}"
                ),
                [
                    format!("ip link set dev DEVICE mtu {mtu}, on {by}"),
                    format!(
                        "or in the configuration: mtu = {} on segment {segment}",
                        fits.unwrap_or(1280)
                    ),
                ],
            );
        }
        let so_far = passed.map_or_else(String::new, |len| format!(", but does those of {len}"));
        fault(
            Item::Mtu,
            format!("does not take packets of {mtu} bytes, as segment {segment} carries{so_far}"),
            [
                format!("ip link set dev DEVICE mtu {mtu}"),
                format!(
                    "or in the configuration: mtu = {} on segment {segment}",
                    passed.unwrap_or(1280)
                ),
            ],
        )
    }

    /// Whether a fault would be noticed, and soon enough.
    fn checks_finding(&self, now: Instant, subject: &Subject) -> Finding {
        let found = self.services.destinations.get(subject.destination);
        let service = found.and_then(|found| self.services.services.get(found.service));
        let Some(check) = service.and_then(|service| service.config.check.as_ref()) else {
            return untested(
                Item::Checks,
                "there is no [service.check]: a service that dies goes unnoticed".to_owned(),
            );
        };
        let failing = (check.timeout + check.delay_before_retry) * check.retries + check.timeout;
        let noticed = check.interval.max(failing) * check.fall;
        if noticed > NOTICED_WITHIN {
            return fault(
                Item::Checks,
                format!(
                    "a real server that dies gets connections for up to {} more",
                    format_duration(noticed)
                ),
                ["in the configuration, [service.check]: a shorter interval or timeout, or a \
                  smaller fall"
                    .to_owned()],
            );
        }
        let report = found.and_then(|found| self.checks.report(now, found.check?));
        let age = report.and_then(|report| report.last).map(|last| last.age_seconds);
        let expected = (check.interval + failing).as_secs_f64() + 2.0;
        match age {
            Some(age) if age > expected => fault(
                Item::Checks,
                format!("the last check ended {age:.0} s ago, later than it should"),
                ["the router is short of time: longer intervals, or fewer checks".to_owned()],
            ),
            _ => fine(
                Item::Checks,
                format!("{check}; one that dies is noticed within {}", format_duration(noticed)),
            ),
        }
    }
}

/// Whether the VIP is on the real server.
fn vip_finding(signs: &Signs<'_>) -> Finding {
    let Subject { vip, address, .. } = *signs.subject;
    let prefix = if vip.is_ipv4() { 32 } else { 128 };
    let missing = |how: String| {
        fault(
            Item::Vip,
            format!("{vip} is not on it: {how}"),
            [format!("ip address add {vip}/{prefix} dev lo")],
        )
    };
    for probe in [Probe::Service, Probe::EchoAtVip] {
        match signs.of(probe) {
            Some(Ok(_) | Err(Fault::Refused | Fault::OtherSource(_))) => {
                return fine(Item::Vip, format!("has {vip}"));
            }
            Some(Err(Fault::CameBack)) => {
                return missing("it sends packets for it back to the director".to_owned());
            }
            Some(Err(Fault::Unreachable { by, error: IcmpError::Host | IcmpError::Network })) => {
                return missing(format!("{by} says it is unreachable"));
            }
            Some(Err(Fault::Unreachable { by, error: IcmpError::Other })) if *by != vip => {
                return missing(format!("{by} handed a packet for it on, in vain"));
            }
            Some(Err(Fault::Unreachable { by, error: IcmpError::Port | IcmpError::Protocol }))
                if *by == vip =>
            {
                return fine(Item::Vip, format!("has {vip}"));
            }
            _ => {}
        }
    }
    if signs.works(Probe::ServiceForClients) {
        return fine(Item::Vip, format!("has {vip}"));
    }
    if signs.answers(Probe::EchoAtRip) || signs.answers(Probe::ServiceAtRip) {
        if let Some(Err(Fault::Unreachable { by, error })) = signs.of(Probe::Service) {
            return fault(
                Item::Vip,
                format!("packets to {vip} are rejected: {error}, says {by}"),
                [format!(
                    "a firewall on it: nft list ruleset; {} -I INPUT -d {vip} -j ACCEPT",
                    iptables(vip)
                )],
            );
        }
        return missing(format!(
            "no answer at {vip}, while {address} answers (or a firewall drops all packets to it)"
        ));
    }
    let (asked_by, filter) = match vip {
        IpAddr::V4(_) => ("ARP", ", its reverse path filter"),
        IpAddr::V6(_) => ("neighbor solicitations", ""),
    };
    let mut remedy = vec!["nft list ruleset".to_owned()];
    if vip.is_ipv4() {
        remedy.push(RP_FILTER_REMEDY.to_owned());
    }
    remedy.push("ip route get (the director's address)".to_owned());
    fault(
        Item::Vip,
        format!(
            "it answers {asked_by}, but no packet at all: a firewall{filter}, or no route back to \
             the director"
        ),
        remedy,
    )
}

/// On the real server: a VIP of IPv6 on no card, for Linux not to answer for it.
fn lo_only(vip: IpAddr) -> String {
    format!("ip address flush to {vip} && ip address add {vip}/128 dev lo nodad")
}

/// The program for the firewall of a family.
fn iptables(vip: IpAddr) -> &'static str {
    if vip.is_ipv4() { "iptables" } else { "ip6tables" }
}

/// Whether the service answers at the VIP.
fn service_finding(signs: &Signs<'_>) -> Finding {
    let Subject { vip, address, port, protocol, .. } = *signs.subject;
    let Some(port) = port.filter(|_| protocol != Protocol::Sctp) else {
        return untested(Item::Service, "there is no single port to ask".to_owned());
    };
    let endpoint = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("{address}:{port}/{protocol}"),
        IpAddr::V6(address) => format!("[{address}]:{port}/{protocol}"),
    };
    let at = endpoint(vip);
    let is_nobody = matches!(
        signs.of(Probe::Service),
        Some(Err(Fault::Refused | Fault::Unreachable { error: IcmpError::Port, .. }))
    );
    let asks_in_vain = protocol == Protocol::Udp
        && !matches!(signs.subject.exchange, Some(CheckKind::Dns(_) | CheckKind::Udp(_)));
    match signs.of(Probe::Service) {
        Some(Ok(latency)) => {
            fine(Item::Service, format!("{at} answers in {:.2} ms", latency.as_secs_f64() * 1e3))
        }
        Some(Err(_)) if is_nobody && signs.works(Probe::ServiceAtRip) => fault(
            Item::Service,
            format!("nobody listens on {at}, but on {} there is somebody", endpoint(address)),
            [format!("let the service listen on {vip} too, or on all addresses")],
        ),
        Some(Err(_)) if is_nobody => fault(
            Item::Service,
            format!("nobody listens on {at}"),
            ["start the service, and let it listen on the VIP or on all addresses".to_owned()],
        ),
        Some(Err(Fault::OtherSource(other))) => fault(
            Item::Service,
            format!("{at} answers from {other}: clients do not take that for an answer"),
            [
                format!("let the service answer from the address it is asked at: bind it to {vip}"),
                "and translate no addresses: nft list ruleset".to_owned(),
            ],
        ),
        Some(Err(Fault::NoAnswer(_))) if asks_in_vain => untested(
            Item::Service,
            format!(
                "{at} is silent, and nothing is known that it would answer to: a [service.check] \
                 of kind udp or dns says it"
            ),
        ),
        Some(Err(Fault::NoAnswer(_))) => fault(
            Item::Service,
            format!(
                "{at} does not answer, though {vip} is there: a firewall drops it, or the \
                     service does not take connections"
            ),
            [
                format!(
                    "{} -I INPUT -d {vip} -p {protocol} --dport {port} -j ACCEPT",
                    iptables(vip)
                ),
                "nft list ruleset; ss -ln".to_owned(),
            ],
        ),
        Some(Err(other)) => fault(
            Item::Service,
            format!("{at}: {other}"),
            [format!("{} -I INPUT -d {vip} -p {protocol} --dport {port} -j ACCEPT", iptables(vip))],
        ),
        None => untested(Item::Service, "it was not asked".to_owned()),
    }
}

fn fine(item: Item, text: String) -> Finding {
    Finding { item, verdict: Verdict::Fine, text, remedy: Vec::new() }
}

fn untested(item: Item, text: String) -> Finding {
    Finding { item, verdict: Verdict::Untested, text, remedy: Vec::new() }
}

fn fault(item: Item, text: String, remedy: impl IntoIterator<Item = String>) -> Finding {
    let remedy = remedy.into_iter().collect();
    Finding { item, verdict: Verdict::Fault, text, remedy }
}

//! What must hold for every frame, whatever the LAN does.

use std::collections::{BTreeMap, BTreeSet};

use vipr::director::Action;
use vipr::director::report::{RealServerReport, RealServerState, ServiceReport};
use vipr::wire::MacAddr;

use crate::harness::{BACK_DIP, BACK_MAC, FRONT_DIP, FRONT_MAC, VIP};
use crate::lan::{Plug, QUORUM, QUORUM_HYSTERESIS, SORRY};
use crate::stations::{Heard, Station, read};

/// A client's address and port.
type Flow = ([u8; 4], u16);

#[derive(Default)]
pub struct Oracles {
    /// Which real server each flow has, and whether it got past its SYN.
    flows: BTreeMap<Flow, (u8, bool)>,
    /// What is held, but for its MAC addresses.
    held: Vec<Vec<u8>>,
    /// Whether a real server leaks ARP.
    pub leak: bool,
    /// Whether real servers are checked.
    pub checks: bool,
    /// Flows that were given to a real server.
    given: BTreeSet<Flow>,
    /// Frames that told a single station who has the VIP.
    pub told: usize,
    pub group: Group,
}

/// What must hold of a service with several ports, persistence, a quorum and a sorry server. It
/// knows weights and who is up, and works out all else by the rules as they are documented.
pub struct Group {
    quorate: bool,
    /// Which real servers are up; the sorry server may be one.
    up: BTreeSet<u8>,
    eligible: bool,
    /// Where each flow was placed, and whether it has been closed since.
    placed: BTreeMap<Flow, (u8, bool)>,
    /// The real server of each client.
    homes: BTreeMap<[u8; 4], u8>,
    /// Flows placed on each server, by port.
    pub placements: BTreeMap<(u8, u16), usize>,
    /// Times a quorum was gained, or lost.
    pub turns: usize,
}

impl Default for Group {
    fn default() -> Group {
        Group {
            quorate: true,
            up: BTreeSet::new(),
            eligible: true,
            placed: BTreeMap::new(),
            homes: BTreeMap::new(),
            placements: BTreeMap::new(),
            turns: 0,
        }
    }
}

impl Group {
    /// Who is up has changed, perhaps: keepalived's hysteresis.
    pub fn look(&mut self, service: &ServiceReport) {
        let is_up = |found: &&RealServerReport| {
            !matches!(found.state, RealServerState::Down | RealServerState::Draining)
        };
        let up = || service.real_servers.iter().filter(is_up);
        let sorry = service.sorry_server.iter().filter(is_up);
        let number = |found: &RealServerReport| found.name[2..].parse::<u8>().expect("rsN");
        self.up = up().chain(sorry).map(number).collect();
        self.eligible = up().any(|found| found.weight > 0);
        let live: u64 = up().map(|found| u64::from(found.weight)).sum();
        let before = self.quorate;
        self.quorate = if self.quorate {
            live >= (QUORUM - QUORUM_HYSTERESIS).max(1)
        } else {
            live >= QUORUM + QUORUM_HYSTERESIS
        };
        self.turns += usize::from(self.quorate != before);
    }

    /// A client's frame was judged, by what was known before.
    pub fn judged(&mut self, seed: u64, bytes: &[u8], action: &Action, to: Option<u8>) {
        let Heard::Tcp(tcp) = read(bytes) else { return };
        if tcp.destination != VIP || !matches!(action, Action::Forward { .. } | Action::Hold) {
            return;
        }
        let to = to.unwrap_or_else(|| panic!("seed {seed}: forwarded to nobody"));
        let flow = (tcp.source, tcp.source_port);
        match self.placed.get_mut(&flow) {
            // Closed, and a SYN that was long under way: it goes on, or begins anew.
            Some((at, true)) if *at != to && tcp.flags == "S" => {}
            Some((at, closed)) => {
                assert_eq!(*at, to, "seed {seed}: {flow:?} is moved by {}", tcp.flags);
                *closed |= tcp.flags == "FA";
                return;
            }
            None => assert_eq!(tcp.flags, "S", "seed {seed}: {flow:?} begins in its middle"),
        }
        self.placed.insert(flow, (to, false));
        *self.placements.entry((to, tcp.destination_port)).or_default() += 1;
        let diverted = !self.quorate || !self.eligible;
        let home = self.homes.get(&tcp.source).copied().filter(|home| self.up.contains(home));
        if !self.quorate && self.up.contains(&SORRY) {
            assert_eq!(to, SORRY, "seed {seed}: {flow:?} without a quorum");
        } else if let Some(home) = home {
            // Persistence keeps to it whatever its weight is, on either port.
            assert_eq!(to, home, "seed {seed}: {flow:?} leaves its real server");
        } else if !diverted {
            assert_ne!(to, SORRY, "seed {seed}: {flow:?} has no need to be sorry");
        }
        if to != SORRY {
            self.homes.insert(tcp.source, to);
        }
    }
}

impl Oracles {
    /// Of a forwarded frame only the two MAC addresses change.
    pub fn forwarded(&self, seed: u64, before: &[u8], after: &[u8]) {
        assert_eq!(before[12..], after[12..], "seed {seed}");
        let source = MacAddr(after[6..12].try_into().unwrap());
        assert!([FRONT_MAC, BACK_MAC].contains(&source), "seed {seed}: the director's own");
        assert!(matches!(read(after), Heard::Tcp(tcp) if tcp.destination == VIP), "seed {seed}");
    }

    /// A frame goes to a real server: no connection begins at one that is down.
    pub fn given(&mut self, seed: u64, bytes: &[u8], real_server: &str, down: &[String]) {
        let Heard::Tcp(tcp) = read(bytes) else { return };
        if self.given.insert((tcp.source, tcp.source_port)) {
            assert!(
                !down.iter().any(|name| name == real_server),
                "seed {seed}: {:?}:{} begins at {real_server}, which is down",
                tcp.source,
                tcp.source_port
            );
        }
    }

    pub fn held(&mut self, bytes: &[u8]) {
        self.held.push(bytes[12..].to_vec());
    }

    /// What the director sends by itself: ARP for what is its own, answers to those who asked,
    /// and what it held.
    pub fn sent(&mut self, seed: u64, segment: &str, bytes: &[u8], cause: Option<&[u8]>) {
        match read(bytes) {
            Heard::Arp { request, sender_mac, sender, target } => {
                let dip = if segment == "front" { FRONT_DIP } else { BACK_DIP };
                assert!([FRONT_MAC, BACK_MAC].contains(&sender_mac), "seed {seed}");
                if request {
                    // Of IPv6 it always has an address to ask from, the link-local one.
                    let MacAddr([.., a, b, c]) = sender_mac;
                    let asks_as = sender == dip || sender == [0xfe, a, b, c];
                    let announces = sender == VIP && target == VIP && segment != "back";
                    let asks = sender == dip && target[..3] == [10, 0, 0] && segment != "front";
                    let finds_out = asks_as && target == VIP && segment != "back";
                    // A claimant, and nobody else, is asked who he is.
                    let identifies = self.leak && asks_as && target[..3] == [10, 0, 0];
                    assert!(
                        announces || asks || finds_out || identifies,
                        "seed {seed}: {bytes:02x?}"
                    );
                    if announces && bytes[0] & 1 == 0 {
                        assert!(self.leak, "seed {seed}: repairs without a claimant");
                        self.told += 1;
                    }
                } else {
                    let own = sender == dip || sender == VIP && segment != "back";
                    assert!(own, "seed {seed}: only VIPs and DIPs are answered for");
                    let asker = &cause.expect("nobody asked")[6..12];
                    assert_eq!(&bytes[..6], asker, "seed {seed}: by unicast, to who asked");
                }
            }
            Heard::Listening => {
                assert_eq!(bytes[..6], [0x33, 0x33, 0, 0, 0, 0x16], "seed {seed}");
                assert_eq!(bytes[22..24], [0xfe, 0x80], "seed {seed}: from its link-local address");
            }
            // A check: to the VIP by IP, to a real server by MAC, and only on its segment.
            Heard::Tcp(tcp) if self.checks && is_own(tcp.source) => {
                assert_eq!((tcp.destination, segment != "front"), (VIP, true), "seed {seed}");
                assert_eq!(bytes[..5], [0x52, 0x54, 0, 0, 0], "seed {seed}: a real server's");
            }
            Heard::Tcp(tcp) if tcp.flags == "R" && tcp.source == VIP => {
                let cause = cause.expect("nothing to answer");
                assert_eq!(bytes[..6], cause[6..12], "seed {seed}");
            }
            _ => {
                let at = self.held.iter().position(|held| *held == bytes[12..]);
                let at = at.unwrap_or_else(|| panic!("seed {seed}: sent {bytes:02x?}"));
                self.held.swap_remove(at);
            }
        }
    }

    /// A frame reached a station. A flow stays on its real server; only a SYN that never got
    /// further may go to another one.
    pub fn arrived(&mut self, seed: u64, station: &Station, _plug: Plug, bytes: &[u8]) {
        let Station::RealServer(server) = station else { return };
        let Heard::Tcp(tcp) = read(bytes) else { return };
        let is_its = [server.back_mac, server.front_mac].contains(&tcp.destination_mac);
        if tcp.destination != VIP || !is_its || is_own(tcp.source) {
            return;
        }
        let opened = tcp.flags != "S";
        let flow =
            self.flows.entry((tcp.source, tcp.source_port)).or_insert((server.number, opened));
        if flow.0 != server.number {
            assert!(
                !opened && !flow.1,
                "seed {seed}: {:?}:{} moved from rs{} to rs{}",
                tcp.source,
                tcp.source_port,
                flow.0,
                server.number
            );
            flow.0 = server.number;
        }
        flow.1 |= opened;
    }

    /// How many flows each real server has.
    pub fn flows_by_server(&self) -> BTreeMap<u8, usize> {
        let mut shares = BTreeMap::new();
        for (server, _) in self.flows.values() {
            *shares.entry(*server).or_default() += 1;
        }
        shares
    }
}

/// Whether an address is the director's own, from which it checks.
fn is_own(address: [u8; 4]) -> bool {
    [FRONT_DIP, BACK_DIP].contains(&address)
}

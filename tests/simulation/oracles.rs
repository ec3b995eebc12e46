//! What must hold for every frame, whatever the LAN does.

use std::collections::{BTreeMap, BTreeSet};

use vipr::wire::MacAddr;

use crate::harness::{BACK_DIP, BACK_MAC, FRONT_DIP, FRONT_MAC, VIP};
use crate::lan::Plug;
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

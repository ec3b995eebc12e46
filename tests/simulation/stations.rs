//! Who is on the LAN: clients that behave as TCP does, and real servers set up as they should be.

use std::collections::BTreeMap;
use std::time::Duration;

use etherparse::{ArpOperation, NetSlice, SlicedPacket, TransportSlice};
use vipr::director::Instant;
use vipr::wire::MacAddr;

use crate::family::{read_discovery, short};
use crate::harness::VIP;
use crate::harness::frames::{Tcp, arp_reply, arp_request};
use crate::lan::{Plug, Reactions};

/// How often a client asks again, and how often at most.
const RETRY: Duration = Duration::from_secs(1);
const RETRIES_MAX: u32 = 8;
/// How long a client believes its ARP cache.
const ARP_LIFETIME: Duration = Duration::from_secs(20);

/// How long it keeps to the first of several answers.
const ARP_LOCK: Duration = Duration::from_secs(1);

pub enum Station {
    Client(Client),
    RealServer(RealServer),
}

impl Station {
    pub fn segments(&self) -> Vec<&'static str> {
        match self {
            Station::Client(client) => vec![client.segment],
            Station::RealServer(server) if server.front == server.back => vec![server.back],
            Station::RealServer(server) => vec![server.front, server.back],
        }
    }

    pub fn plug_in(&mut self, plug: Plug) {
        match self {
            Station::Client(client) => client.plug = Some(plug),
            Station::RealServer(server) => server.plugs.push(plug),
        }
    }

    pub fn hear(&mut self, now: Instant, plug: Plug, bytes: &[u8]) -> Reactions {
        match self {
            Station::Client(client) => client.hear(now, bytes),
            Station::RealServer(server) => server.hear(plug, bytes),
        }
    }

    pub fn wake(&mut self, now: Instant) -> Reactions {
        match self {
            Station::Client(client) => client.act(now),
            Station::RealServer(_) => Reactions::default(),
        }
    }
}

/// An ARP packet or a TCP segment, as far as anyone here cares.
pub enum Heard {
    Arp {
        request: bool,
        sender_mac: MacAddr,
        sender: [u8; 4],
        target: [u8; 4],
    },
    Tcp(Tcp),
    /// A report of which multicast groups are listened to.
    Listening,
    Other,
}

pub fn read(bytes: &[u8]) -> Heard {
    let sliced = SlicedPacket::from_ethernet(bytes).expect("nobody sends rubbish here");
    let mac = |at: usize| MacAddr(bytes[at..at + 6].try_into().unwrap());
    match (&sliced.net, &sliced.transport) {
        (Some(NetSlice::Arp(arp)), _) => Heard::Arp {
            request: arp.operation() == ArpOperation::REQUEST,
            sender_mac: MacAddr(arp.sender_hw_addr().try_into().unwrap()),
            sender: arp.sender_protocol_addr().try_into().unwrap(),
            target: arp.target_protocol_addr().try_into().unwrap(),
        },
        (Some(net @ (NetSlice::Ipv4(_) | NetSlice::Ipv6(_))), Some(TransportSlice::Tcp(tcp))) => {
            let (source, destination) = match net {
                NetSlice::Ipv6(ip) => {
                    (short(ip.header().source()), short(ip.header().destination()))
                }
                NetSlice::Ipv4(ip) => (ip.header().source(), ip.header().destination()),
                NetSlice::Arp(_) => unreachable!("ARP carries no TCP"),
            };
            let flags = match (tcp.syn(), tcp.ack(), tcp.fin(), tcp.rst()) {
                (_, _, _, true) => "R",
                (true, true, _, _) => "SA",
                (true, false, _, _) => "S",
                (_, _, true, _) => "FA",
                _ => "A",
            };
            Heard::Tcp(Tcp {
                source_mac: mac(6),
                destination_mac: mac(0),
                source,
                destination,
                source_port: tcp.source_port(),
                destination_port: tcp.destination_port(),
                flags,
                sequence: tcp.sequence_number(),
                acknowledgement: tcp.acknowledgment_number(),
                payload: tcp.payload().to_vec(),
            })
        }
        _ => read_discovery(bytes, &sliced),
    }
}

/// A client: asks for the VIP, opens flows, sends one request on each, closes.
pub struct Client {
    pub mac: MacAddr,
    pub address: [u8; 4],
    segment: &'static str,
    plug: Option<Plug>,
    vip_mac: Option<(MacAddr, Instant)>,
    flows: BTreeMap<u16, Flow>,
    next_port: u16,
    /// The ports it asks for, in turns.
    ports: &'static [u16],
    pub finished: usize,
    /// Flows given up on, or refused.
    pub failed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Asking,
    Closing,
}

struct Flow {
    stage: Stage,
    tries: u32,
    next: Instant,
    destination_port: u16,
    /// Who has answered so far.
    server: Option<u8>,
}

impl Client {
    pub fn new(number: u8, segment: &'static str, ports: &'static [u16]) -> Client {
        Client {
            mac: MacAddr([0x52, 0x54, 0, 0, 0xc, number]),
            address: [192, 0, 2, 100 + number],
            segment,
            plug: None,
            vip_mac: None,
            flows: BTreeMap::new(),
            next_port: 40_000,
            ports,
            finished: 0,
            failed: 0,
        }
    }

    pub fn open(&mut self, now: Instant) -> Reactions {
        let destination_port = self.ports[usize::from(self.next_port) % self.ports.len()];
        let flow =
            Flow { stage: Stage::Connecting, tries: 0, next: now, destination_port, server: None };
        self.flows.insert(self.next_port, flow);
        self.next_port += 1;
        self.act(now)
    }

    /// Sends what is due, and says when something is due again.
    fn act(&mut self, now: Instant) -> Reactions {
        let mut reactions = Reactions::default();
        let plug = self.plug.unwrap();
        let cached = self.vip_mac.filter(|&(_, at)| now.since(at) < ARP_LIFETIME);
        let mut asked = false;
        let mut over = Vec::new();
        for (&port, flow) in &mut self.flows {
            if flow.next > now {
                continue;
            }
            flow.tries += 1;
            flow.next = now + RETRY;
            if flow.tries > RETRIES_MAX {
                over.push(port);
                continue;
            }
            let Some((vip_mac, _)) = cached else {
                if !asked {
                    let request = arp_request(self.mac, self.address, VIP);
                    reactions.frames.push((plug, request));
                }
                asked = true;
                continue;
            };
            let (flags, payload): (_, &[u8]) = match flow.stage {
                Stage::Connecting => ("S", b""),
                Stage::Asking => ("A", b"who are you?"),
                Stage::Closing => ("FA", b""),
            };
            let segment = Tcp {
                source_mac: self.mac,
                destination_mac: vip_mac,
                source: self.address,
                destination: VIP,
                source_port: port,
                destination_port: flow.destination_port,
                flags,
                sequence: 1,
                acknowledgement: 1,
                payload: payload.to_vec(),
            };
            reactions.frames.push((plug, segment.bytes()));
        }
        for port in over {
            self.flows.remove(&port);
            self.failed += 1;
        }
        let next = self.flows.values().map(|flow| flow.next).min();
        reactions.wake_after = next.map(|next| next.since(now).max(Duration::from_millis(1)));
        reactions
    }

    fn hear(&mut self, now: Instant, bytes: &[u8]) -> Reactions {
        match read(bytes) {
            Heard::Arp { sender, sender_mac, request, .. } if sender == VIP => {
                let first = self.vip_mac.is_none_or(|(_, at)| now.since(at) >= ARP_LIFETIME);
                // Linux makes no entry of what it did not ask for.
                if request && self.vip_mac.is_none() {
                    return Reactions::default();
                }
                // It keeps to the first of several answers; what is gratuitous it believes.
                if !request && self.vip_mac.is_some_and(|(_, at)| now.since(at) < ARP_LOCK) {
                    return Reactions::default();
                }
                self.vip_mac = Some((sender_mac, now));
                if first {
                    self.flows.values_mut().for_each(|flow| flow.next = now);
                    return self.act(now);
                }
                Reactions::default()
            }
            Heard::Tcp(tcp) if tcp.source == VIP && tcp.destination == self.address => {
                self.hear_tcp(now, &tcp)
            }
            _ => Reactions::default(),
        }
    }

    fn hear_tcp(&mut self, now: Instant, tcp: &Tcp) -> Reactions {
        let Some(flow) = self.flows.get_mut(&tcp.destination_port) else {
            return Reactions::default();
        };
        if tcp.flags == "R" {
            self.flows.remove(&tcp.destination_port);
            self.failed += 1;
            return Reactions::default();
        }
        let next = match (flow.stage, tcp.flags) {
            (Stage::Connecting, "SA") => Some(Stage::Asking),
            (Stage::Asking, "A") if !tcp.payload.is_empty() => {
                let server = tcp.payload[0];
                let before = *flow.server.get_or_insert(server);
                assert_eq!(before, server, "one flow, one real server");
                Some(Stage::Closing)
            }
            (Stage::Closing, "FA") => {
                self.finished += 1;
                self.flows.remove(&tcp.destination_port);
                return self.act(now);
            }
            _ => None,
        };
        if let Some(stage) = next {
            flow.stage = stage;
            flow.tries = 0;
            flow.next = now;
            return self.act(now);
        }
        Reactions::default()
    }
}

/// A real server with the VIP on its loopback, quiet about it, and its own address.
pub struct RealServer {
    pub number: u8,
    pub rip: [u8; 4],
    pub back_mac: MacAddr,
    pub front_mac: MacAddr,
    /// It answers ARP for the VIP, as a Linux with the VIP on lo does unless told not to.
    pub leaks: bool,
    /// Whether its service answers.
    pub serves: bool,
    front: &'static str,
    back: &'static str,
    plugs: Vec<Plug>,
}

impl RealServer {
    pub fn new(number: u8, front: &'static str, back: &'static str) -> RealServer {
        RealServer {
            number,
            rip: [10, 0, 0, 10 + number],
            back_mac: MacAddr([0x52, 0x54, 0, 0, 0, 0x10 + number]),
            front_mac: MacAddr([0x52, 0x54, 0, 0, u8::from(front != back), 0x10 + number]),
            leaks: false,
            serves: true,
            front,
            back,
            plugs: Vec::new(),
        }
    }

    fn hear(&mut self, plug: Plug, bytes: &[u8]) -> Reactions {
        let mut reactions = Reactions::default();
        match read(bytes) {
            Heard::Arp { request: true, sender_mac, sender, target }
                if target == self.rip && plug.segment == self.back =>
            {
                let reply = arp_reply(self.back_mac, self.rip, sender_mac, sender);
                reactions.frames.push((plug, reply));
            }
            Heard::Arp { request: true, sender_mac, sender, target }
                if self.leaks
                    && plug.segment == self.front
                    && (target == VIP && sender != VIP || target == self.rip) =>
            {
                let reply = arp_reply(self.front_mac, target, sender_mac, sender);
                reactions.frames.push((plug, reply));
            }
            Heard::Tcp(tcp)
                if self.serves
                    && tcp.destination == VIP
                    && (tcp.destination_mac == self.back_mac
                        || self.leaks && tcp.destination_mac == self.front_mac) =>
            {
                reactions.frames.extend(self.answer(&tcp));
            }
            _ => {}
        }
        reactions
    }

    /// The reply goes straight to the client, by the card on its segment.
    fn answer(&self, tcp: &Tcp) -> Option<(Plug, Vec<u8>)> {
        let (flags, payload) = match tcp.flags {
            "S" => ("SA", vec![]),
            "A" if !tcp.payload.is_empty() => ("A", vec![self.number]),
            "FA" => ("FA", vec![]),
            _ => return None,
        };
        // The director asks from its own address, on the segment of its checks.
        let is_check = tcp.source[..3] == self.rip[..3];
        let segment = if is_check { self.back } else { self.front };
        let plug = *self.plugs.iter().find(|plug| plug.segment == segment)?;
        let (source_mac, destination_mac) = match is_check {
            true => (self.back_mac, tcp.source_mac),
            false => (self.front_mac, MacAddr([0x52, 0x54, 0, 0, 0xc, tcp.source[3] - 100])),
        };
        let reply = Tcp {
            source_mac,
            destination_mac,
            source: VIP,
            destination: tcp.source,
            source_port: tcp.destination_port,
            destination_port: tcp.source_port,
            flags,
            sequence: 1,
            acknowledgement: tcp.sequence.wrapping_add(1),
            payload,
        };
        Some((plug, reply.bytes()))
    }
}

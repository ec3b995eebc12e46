//! Packets and changes, from a seed.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::harness::frames::FrameBuilder;
use super::harness::frames6::Packet6;
use super::harness::{CLIENT_MAC, FRONT_MAC};
use super::scenarios::{Changes, Scenario};

/// Connections that packets are made of at a time.
const FLOWS_MAX: usize = 300;
/// Packets between two check-points.
const CHECK_EVERY: usize = 500;
/// Packets before a connection on a port that was used again goes on: the kernel removes the old
/// one with its next tick, unless a packet finds it before.
const REST: usize = 500;
/// Packets between two changes, on average.
const CHANGE_EVERY: u64 = 150;
/// Packets between two pauses; in [`PAUSE`] those that are closing expire.
const PAUSE_EVERY: usize = 1250;
pub const PAUSE: Duration = Duration::from_secs(16);
/// The timeout of closing connections where there are pauses: longer than the packets between two
/// of them take.
pub const FIN_WAIT_SECONDS: u32 = 15;
pub const PORT: u16 = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Packet(Packet),
    Weight {
        server: u8,
        weight: u32,
    },
    Remove {
        server: u8,
    },
    Add {
        server: u8,
        weight: u32,
    },
    /// Nothing happens for [`PAUSE`].
    Pause,
    Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// In terms of IPv4: [`Family::client`] says who that is.
    pub client: Ipv4Addr,
    pub port: u16,
    pub vip: u8,
    /// Of TCP; `None` for UDP.
    pub flags: Option<&'static str>,
}

/// Which addresses a trace's stations have. The last octet says who it is in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn vip(self, number: u8) -> IpAddr {
        // Far apart, for those who hash them.
        let last = 10 + 7 * number;
        match self {
            Family::V4 => Ipv4Addr::new(192, 0, 2, last).into(),
            Family::V6 => of_words([1, scattered(number.into(), 5), last.into()]),
        }
    }

    pub fn rip(self, server: u8) -> IpAddr {
        let last = 11 + server;
        match self {
            Family::V4 => Ipv4Addr::new(10, 0, 0, last).into(),
            Family::V6 => of_words([2, 0, last.into()]),
        }
    }

    /// A client's address. In IPv6 no word of it is the same for all but the first, so that each
    /// counts in a hash; those who share 24 bits in IPv4 share 64.
    pub fn client(self, client: Ipv4Addr) -> IpAddr {
        let bits = client.to_bits();
        match self {
            Family::V4 => client.into(),
            Family::V6 => of_words([scattered(bits >> 8, 3) | 1 << 31, scattered(bits, 7), bits]),
        }
    }
}

/// In 2001:db8::/32.
fn of_words(words: [u32; 3]) -> IpAddr {
    let bits = words.iter().fold(0x2001_0db8_u128, |bits, word| bits << 32 | u128::from(*word));
    Ipv6Addr::from_bits(bits).into()
}

/// Another number for each number.
const fn scattered(number: u32, turn: u32) -> u32 {
    number.wrapping_mul(0x9E37_79B1).rotate_left(turn)
}

impl Packet {
    /// As it is on the wire, with a number to know it by: the identification of IPv4, the flow
    /// label of IPv6.
    pub fn frame(&self, family: Family, number: u16) -> Vec<u8> {
        let (client, vip) = (family.client(self.client), family.vip(self.vip));
        match (client, vip) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                let builder = FrameBuilder::new((CLIENT_MAC, client), (FRONT_MAC, vip));
                let builder = builder.identified(number);
                match self.flags {
                    Some(flags) => builder.tcp(self.port, PORT, flags, b""),
                    None => builder.udp(self.port, PORT, b"?"),
                }
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let macs = (CLIENT_MAC, FRONT_MAC);
                let packet = Packet6 { macs, source, destination, hop_limit: 61 };
                labelled(
                    number,
                    match self.flags {
                        Some(flags) => packet.tcp(self.port, PORT, flags, b""),
                        None => packet.udp(self.port, PORT, b"?"),
                    },
                )
            }
            _ => unreachable!("both are of one family"),
        }
    }
}

/// The frame of IPv6 with this flow label, which no checksum covers.
pub fn labelled(number: u16, mut frame: Vec<u8>) -> Vec<u8> {
    frame[16..18].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    client: Ipv4Addr,
    port: u16,
    vip: u8,
    stage: Stage,
}

struct Generator<'s> {
    scenario: &'s Scenario,
    random: Random,
    flows: Vec<Flow>,
    /// Not to be used before so many packets.
    resting: VecDeque<(usize, Flow)>,
    count: usize,
    next_port: u16,
    members: Vec<(u8, u32)>,
    next_server: u8,
}

/// The whole trace of a scenario.
pub fn trace(scenario: &Scenario) -> Vec<Op> {
    let seed = scenario.name.bytes().fold(scenario.seed, |seed, byte| {
        seed.wrapping_mul(0x0000_0100_0000_01B3) ^ u64::from(byte)
    });
    let mut generator = Generator {
        scenario,
        random: Random(seed | 1 << 63),
        flows: Vec::new(),
        resting: VecDeque::new(),
        count: 0,
        next_port: 1024,
        members: (0..).zip(scenario.weights.iter().copied()).collect(),
        next_server: scenario.weights.len() as u8,
    };
    let mut ops = Vec::new();
    for count in 1..=scenario.packets {
        if generator.random.below(CHANGE_EVERY) == 0 {
            ops.extend(generator.change());
        }
        ops.push(Op::Packet(generator.packet()));
        if count % CHECK_EVERY == 0 {
            ops.push(Op::Check);
        }
        if scenario.pauses && count % PAUSE_EVERY == 0 && count < scenario.packets {
            ops.extend([Op::Pause, Op::Check]);
        }
    }
    ops
}

impl Generator<'_> {
    fn change(&mut self) -> Option<Op> {
        match self.scenario.changes {
            Changes::Weights => {
                let at = self.random.below(self.members.len() as u64) as usize;
                let scale = self.scenario.weights.iter().max().copied().unwrap_or(1);
                let weight = match self.random.below(4) {
                    0 => 0,
                    1 => self.scenario.weights[at],
                    _ => 1 + self.random.below(u64::from(scale) * 3 / 2) as u32,
                };
                let (server, before) = &mut self.members[at];
                if weight == *before {
                    return None;
                }
                *before = weight;
                Some(Op::Weight { server: *server, weight })
            }
            Changes::Members => {
                let many = self.members.len();
                if many < 3 || many < 9 && self.random.below(2) == 0 {
                    let (server, weight) = (self.next_server, self.random.of(&[1, 2, 3, 5, 8]));
                    self.next_server += 1;
                    self.members.push((server, weight));
                    return Some(Op::Add { server, weight });
                }
                let at = self.random.below(many as u64) as usize;
                Some(Op::Remove { server: self.members.remove(at).0 })
            }
        }
    }

    fn packet(&mut self) -> Packet {
        self.count += 1;
        if let Some((_, flow)) = self.resting.pop_front_if(|(due, _)| *due <= self.count) {
            self.flows.push(flow);
        }
        if self.scenario.udp {
            let again = !self.flows.is_empty() && self.random.below(3) > 0;
            let flow = if again { self.any() } else { self.open() };
            return self.packet_of(self.flows[flow], None);
        }
        if let Some(share) = self.scenario.brief {
            return self.brief_packet(share);
        }
        let kind = self.random.below(100);
        if kind < 30 || self.flows.len() < 10 {
            let flow = self.open();
            return self.packet_of(self.flows[flow], Some("S"));
        }
        let at = self.any();
        let flow = self.flows[at];
        let flags = match kind {
            30..60 => self.random.of(&["A", "PA", "A"]),
            60..70 => self.random.of(&["FA", "F", "FPA"]),
            70..78 => self.random.of(&["R", "RA"]),
            // One more SYN: of a client that got no answer, or out of nowhere.
            78..84 if flow.stage != Stage::Ended => "S",
            // The same port again.
            84..90 if self.scenario.reuse && flow.stage == Stage::Ended => {
                self.flows.swap_remove(at);
                let flow = Flow { stage: Stage::Opening, ..flow };
                self.resting.push_back((self.count + REST, flow));
                return self.packet_of(flow, Some("S"));
            }
            // Of no connection.
            90..94 => {
                let flow = Flow { port: self.random.below(1000) as u16 + 1, ..flow };
                let flags = self.random.of(&["A", "FA", "R", "PA", "RS"]);
                return self.packet_of(flow, Some(flags));
            }
            94..97 if flow.stage != Stage::Ended => self.random.of(&["", "P", "SA", "FR", "SF"]),
            _ => "A",
        };
        let stage = &mut self.flows[at].stage;
        if flags.contains('F') || flags.contains('R') || flags.is_empty() || flags == "P" {
            *stage = Stage::Ended;
        } else if flags.contains('A') && *stage == Stage::Opening {
            *stage = Stage::Open;
        }
        self.packet_of(flow, Some(flags))
    }

    /// Of connections one after the other. One of so many stays open.
    fn brief_packet(&mut self, share: u64) -> Packet {
        let last = self.flows.len().wrapping_sub(1);
        let (flags, stage) = match self.flows.last().map(|flow| flow.stage) {
            Some(Stage::Opening) => ("A", Stage::Open),
            Some(Stage::Open) if self.random.below(share) > 0 => ("FA", Stage::Ended),
            _ => {
                // Whoever makes room is not the last one.
                if self.flows.len() == FLOWS_MAX {
                    self.flows.remove(0);
                }
                let flow = self.open();
                return self.packet_of(self.flows[flow], Some("S"));
            }
        };
        self.flows[last].stage = stage;
        self.packet_of(self.flows[last], Some(flags))
    }

    /// Another flow.
    fn open(&mut self) -> usize {
        self.next_port = if self.next_port == u16::MAX { 1024 } else { self.next_port + 1 };
        let flow = Flow {
            client: Ipv4Addr::from_bits(0xC612_0000 + self.random.below(0x2_0000) as u32),
            port: self.next_port,
            vip: self.random.below(self.scenario.vips.into()) as u8,
            stage: Stage::Opening,
        };
        if self.flows.len() >= FLOWS_MAX {
            let forgotten = self.any();
            self.flows.swap_remove(forgotten);
        }
        self.flows.push(flow);
        self.flows.len() - 1
    }

    fn any(&mut self) -> usize {
        self.random.below(self.flows.len() as u64) as usize
    }

    fn packet_of(&self, flow: Flow, flags: Option<&'static str>) -> Packet {
        Packet { client: flow.client, port: flow.port, vip: flow.vip, flags }
    }
}

/// A number for a trace, by which a record is known to be of it.
pub fn fingerprint(ops: &[Op]) -> u64 {
    let text = format!("{ops:?}");
    hash(text.as_bytes())
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

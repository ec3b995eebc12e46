//! The frames that are sent: what they are, and whose.

use vipr::wire::MacAddr;

pub const DIRECTOR_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 1, 1]);
pub const BACKEND_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 2, 1]);
pub const REAL_SERVER_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x11]);
const CLIENT_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xcc]);

/// VIPs are numbered from here on.
const FIRST_VIP: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Clients of established connections: 1024 connections each.
const FIRST_CLIENT: u32 = u32::from_be_bytes([10, 1, 0, 0]);
/// Clients of new connections, 1024 each again.
const FIRST_NEW_CLIENT: u32 = u32::from_be_bytes([11, 0, 0, 0]);

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The VIP of a service by its number.
pub fn vip(service: u32) -> std::net::Ipv4Addr {
    (FIRST_VIP + service).into()
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP segment of an established connection, of which there are so many (each hit at
    /// random), spread over so many services.
    Established { connections: u32, services: u32 },
    /// By turns the SYN and the RST of a connection that never was before, to so many services.
    OpenAndReset { services: u32 },
    /// The SYN of a connection that never was before, to so many services.
    Open { services: u32 },
    /// Who has the VIP? Answered.
    ArpRequest,
    /// A TCP segment to somebody else at the director's MAC. Dropped.
    NotVip,
}

/// What the sender sends in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    pub kind: Kind,
    /// Bytes of a frame, Ethernet header included.
    pub len: usize,
    /// Frames sent before they are forwarded, all of a turn at most.
    pub burst: u64,
}

impl Workload {
    /// A turn's frames all at once.
    pub const fn of(kind: Kind, len: usize) -> Workload {
        Workload { kind, len, burst: u64::MAX }
    }

    /// Whether the frames leave on the other side.
    pub const fn is_forwarded(&self) -> bool {
        !matches!(self.kind, Kind::ArpRequest | Kind::NotVip)
    }
}

/// A writer of frames of one kind. Two of the same kind never write a new connection twice if
/// they are given different numbers.
pub struct Writer {
    kind: Kind,
    next: u32,
}

impl Writer {
    pub fn new(kind: Kind, from: u32) -> Writer {
        Writer { kind, next: from }
    }

    /// The number that a writer after this one begins with.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// A frame of this kind, for [`Self::write`].
    pub fn template(&self, len: usize) -> Vec<u8> {
        match self.kind {
            Kind::ArpRequest => arp_request(len),
            _ => tcp_frame(len),
        }
    }

    /// Makes a template the next frame.
    pub fn write(&mut self, frame: &mut [u8]) {
        let number = self.next;
        match self.kind {
            Kind::Established { connections, services } => {
                let flow = number % connections;
                set_flow(frame, FIRST_CLIENT, flow, flow % services, ACK);
                // An odd stride near the golden ratio of 2^32: no flow is near the one before.
                self.next = number.wrapping_add(0x9e37_79b1);
            }
            Kind::OpenAndReset { services } => {
                let (flow, flags) = (number / 2, if number.is_multiple_of(2) { SYN } else { RST });
                set_flow(frame, FIRST_NEW_CLIENT, flow, flow % services, flags);
                self.next = number.wrapping_add(1);
            }
            Kind::Open { services } => {
                set_flow(frame, FIRST_NEW_CLIENT, number, number % services, SYN);
                self.next = number.wrapping_add(1);
            }
            Kind::NotVip => {
                set_flow(frame, FIRST_CLIENT, number % 1024, u32::from(u16::MAX), ACK);
                self.next = number.wrapping_add(1);
            }
            Kind::ArpRequest => {}
        }
    }
}

/// The frames that establish the connections of [`Kind::Established`], a SYN and an ACK each.
pub struct Establish {
    pub connections: u32,
    pub services: u32,
    frame: Vec<u8>,
    written: u32,
}

impl Establish {
    pub fn new(connections: u32, services: u32) -> Establish {
        Establish { connections, services, frame: tcp_frame(60), written: 0 }
    }

    /// How many frames that takes.
    pub fn len(&self) -> u32 {
        2 * self.connections
    }

    pub fn next(&mut self) -> Option<&[u8]> {
        if self.written == self.len() {
            return None;
        }
        let (flow, is_ack) = (self.written / 2, !self.written.is_multiple_of(2));
        let flags = if is_ack { ACK } else { SYN };
        set_flow(&mut self.frame, FIRST_CLIENT, flow, flow % self.services, flags);
        self.written += 1;
        Some(&self.frame)
    }
}

/// A TCP segment to port 80 as a frame of `len` bytes. The director does not verify the TCP
/// checksum of what it forwards; it stays 0.
fn tcp_frame(len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&DIRECTOR_MAC.0);
    frame[6..12].copy_from_slice(&CLIENT_MAC.0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip_len = (len - 14) as u16;
    frame[14..16].copy_from_slice(&[0x45, 0]);
    frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
    frame[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46] = 0x50;
    frame[48..50].copy_from_slice(&[0xff, 0xff]);
    frame
}

/// Gives a frame its client, VIP and flags: 1024 connections a client.
fn set_flow(frame: &mut [u8], first_client: u32, flow: u32, service: u32, flags: u8) {
    frame[26..30].copy_from_slice(&(first_client + (flow >> 10)).to_be_bytes());
    frame[30..34].copy_from_slice(&(FIRST_VIP + service).to_be_bytes());
    frame[34..36].copy_from_slice(&(20_000 + (flow & 1023) as u16).to_be_bytes());
    frame[47] = flags;
    frame[24..26].copy_from_slice(&[0, 0]);
    let words = frame[14..34].chunks_exact(2);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

fn arp_request(len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&CLIENT_MAC.0);
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&CLIENT_MAC.0);
    frame[28..32].copy_from_slice(&FIRST_CLIENT.to_be_bytes());
    frame[38..42].copy_from_slice(&FIRST_VIP.to_be_bytes());
    frame
}

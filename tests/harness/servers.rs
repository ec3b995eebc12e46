//! Real servers with a TCP stack of their own (smoltcp), for conversations too long to write down:
//! HTTP and TLS over IPv4 and IPv6. Each has the VIP, answers pings, and keeps what it was asked.

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use vipr::director::Instant;
use vipr::wire::MacAddr;

use super::frames::{FrameBuilder, arp_reply};
use super::frames6::{FRONT_DIP6, Packet6, advertisement};
use super::{BACK_DIP, BACK_MAC, FRONT_DIP, FRONT_MAC, World};

/// Connections a server can have at a time.
const CONNECTIONS: usize = 4;

/// What a server says over a connection.
#[derive(Clone)]
pub enum Service {
    /// HTTP, always this answer.
    Http(&'static str),
    /// The same over TLS.
    Https(Arc<ServerConfig>, &'static str),
    /// It accepts connections and says nothing.
    Silent,
}

/// A TLS server with one of the certificates in `tests/data/https`.
pub fn tls(certificate: &str) -> Arc<ServerConfig> {
    let path = |kind: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/https/{certificate}{kind}"))
    };
    let chain = vec![CertificateDer::from_pem_file(path(".pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(path(".key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("it has them").with_no_client_auth().with_single_cert(chain, key);
    Arc::new(config.expect("they belong together"))
}

/// A real server.
pub struct RealServer {
    pub mac: MacAddr,
    pub service: Service,
    /// Whether frames reach it.
    pub up: bool,
    /// Longer packets do not get there, and who says so, if anybody does.
    pub passes: (usize, Option<IpAddr>),
    /// It takes whatever it is told for a request.
    pub answers_anything: bool,
    /// Whoever it was asked by.
    pub askers: BTreeSet<IpAddr>,
    /// Requests it has read, in the clear.
    pub requests: Vec<String>,
    port: u16,
    interface: Interface,
    link: Link,
    sockets: SocketSet<'static>,
    connections: Vec<(SocketHandle, Connection)>,
}

#[derive(Default)]
struct Connection {
    tls: Option<ServerConnection>,
    request: Vec<u8>,
    outgoing: Vec<u8>,
    open: bool,
}

impl RealServer {
    pub fn new(mac: MacAddr, vip: IpAddr, port: u16, service: Service) -> RealServer {
        let mut link = Link::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut link, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(vip.into(), 0)).expect("room for one");
        });
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || tcp::SocketBuffer::new(vec![0; 16 << 10]);
        let connections = (0..CONNECTIONS)
            .map(|_| (sockets.add(tcp::Socket::new(buffer(), buffer())), Connection::default()))
            .collect();
        let requests = Vec::new();
        RealServer {
            mac,
            service,
            up: true,
            passes: (1500, None),
            answers_anything: false,
            askers: BTreeSet::new(),
            requests,
            port,
            interface,
            link,
            sockets,
            connections,
        }
    }

    /// Takes in a frame from the director; what it sends.
    fn handle(&mut self, now: Instant, frame: &[u8]) -> Vec<Vec<u8>> {
        self.askers.insert(source(frame));
        let (limit, who) = self.passes;
        if frame.len() - 14 > limit {
            return who.map(|who| too_big(self.mac, who, frame, limit)).into_iter().collect();
        }
        if let Some(answer) = echo_reply(frame) {
            return vec![answer];
        }
        self.link.received.push_back(frame[14..].to_vec());
        let ether_type = [frame[12], frame[13]];
        let now = StackInstant::from_micros((now.as_nanos() / 1000) as i64);
        loop {
            self.listen();
            self.interface.poll(now, &mut self.link, &mut self.sockets);
            if !self.talk() && self.link.received.is_empty() {
                break;
            }
        }
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let packets = self.link.sent.drain(..);
        let header = [&BACK_MAC.0[..], &self.mac.0, &ether_type].concat();
        packets.map(|packet| [&header[..], &packet].concat()).collect()
    }

    fn listen(&mut self) {
        for (handle, connection) in &mut self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*handle);
            if !socket.is_open() {
                *connection = Connection::default();
                socket.listen(self.port).expect("it is closed");
            }
        }
    }

    /// Reads and answers; whether there was anything.
    fn talk(&mut self) -> bool {
        let mut busy = false;
        for (handle, connection) in &mut self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*handle);
            if !socket.may_recv() && !socket.may_send() {
                continue;
            }
            if !connection.open {
                connection.open = true;
                if let Service::Https(config, _) = &self.service {
                    connection.tls = ServerConnection::new(Arc::clone(config)).ok();
                }
            }
            while socket.can_recv() {
                busy = true;
                let data = socket.recv(|data| (data.len(), data.to_vec())).expect("there is some");
                if let Some(request) = connection.hear(&self.service, &data, self.answers_anything)
                {
                    self.requests.push(request);
                }
            }
            if socket.can_send() && !connection.outgoing.is_empty() {
                busy = true;
                let sent = socket.send_slice(&connection.outgoing).expect("it can send");
                connection.outgoing.drain(..sent);
            }
            if connection.tls.is_none() && matches!(self.service, Service::Https(..)) {
                socket.close();
            }
        }
        busy
    }
}

impl Connection {
    /// Takes in bytes; the request, once it is whole.
    fn hear(&mut self, service: &Service, data: &[u8], anything: bool) -> Option<String> {
        match &mut self.tls {
            None => self.request.extend_from_slice(data),
            Some(tls) => {
                let mut data = data;
                while !data.is_empty() {
                    tls.read_tls(&mut data).expect("from memory");
                    let wrong = tls.process_new_packets().is_err();
                    // Ends as it should, or when there is no more for now.
                    let _ = tls.reader().read_to_end(&mut self.request);
                    while tls.wants_write() {
                        tls.write_tls(&mut self.outgoing).expect("into memory");
                    }
                    if wrong {
                        self.tls = None;
                        return None;
                    }
                }
            }
        }
        if !anything && !self.request.ends_with(b"\r\n\r\n") {
            return None;
        }
        let request = String::from_utf8_lossy(&std::mem::take(&mut self.request)).into_owned();
        match (service, &mut self.tls) {
            (Service::Https(_, answer), Some(tls)) => {
                tls.writer().write_all(answer.as_bytes()).expect("into memory");
                while tls.wants_write() {
                    tls.write_tls(&mut self.outgoing).expect("into memory");
                }
            }
            (Service::Http(answer), _) => self.outgoing.extend_from_slice(answer.as_bytes()),
            _ => {}
        }
        Some(request)
    }
}

/// Lets time pass in which these real servers answer whatever the director asks them.
pub fn serve(world: &mut World, time: Duration, servers: &mut [RealServer]) {
    serve_with(world, time, servers, &[]);
}

/// The same where ARP and ND are answered, too: by segment, who has which address.
pub fn serve_with(
    world: &mut World,
    time: Duration,
    servers: &mut [RealServer],
    neighbors: &[(&str, IpAddr, MacAddr)],
) {
    world.converse(time, |now, frame| {
        if let Some(target) = asked_for(&frame.bytes) {
            let known = neighbors
                .iter()
                .filter(|(segment, address, _)| *segment == frame.segment && *address == target);
            let replies = known.map(|(_, _, mac)| neighbor_reply(&frame.bytes, target, *mac));
            return replies.map(|reply| (frame.segment.clone(), reply)).collect();
        }
        let for_clients = is_from_front(&frame.bytes);
        let segment = if for_clients { "front" } else { "back" };
        let asked = servers.iter_mut().filter(|server| {
            server.up && frame.segment == "back" && frame.bytes[..6] == server.mac.0
        });
        let answers = asked.flat_map(|server| server.handle(now, &frame.bytes));
        let towards = |mut answer: Vec<u8>| {
            if for_clients {
                answer.splice(..6, FRONT_MAC.0);
            }
            (segment.to_owned(), answer)
        };
        answers.map(towards).collect()
    });
}

fn source(frame: &[u8]) -> IpAddr {
    match frame[12..14] {
        [0x08, 0x00] => <[u8; 4]>::try_from(&frame[26..30]).expect("four").into(),
        _ => <[u8; 16]>::try_from(&frame[22..38]).expect("sixteen").into(),
    }
}

/// Whom an ARP request or a neighbour solicitation asks for.
fn asked_for(frame: &[u8]) -> Option<IpAddr> {
    match frame[12..14] {
        [0x08, 0x06] => Some(<[u8; 4]>::try_from(&frame[38..42]).expect("four").into()),
        [0x86, 0xdd] if frame[20] == 58 && frame[54] == 135 => {
            Some(<[u8; 16]>::try_from(&frame[62..78]).expect("sixteen").into())
        }
        _ => None,
    }
}

fn neighbor_reply(question: &[u8], target: IpAddr, mac: MacAddr) -> Vec<u8> {
    let asker = MacAddr(question[6..12].try_into().expect("six"));
    match target {
        IpAddr::V4(target) => {
            let asks = <[u8; 4]>::try_from(&question[28..32]).expect("four");
            arp_reply(mac, target.octets(), asker, asks)
        }
        IpAddr::V6(target) => {
            let asks = <[u8; 16]>::try_from(&question[22..38]).expect("sixteen");
            advertisement((mac, asker), asks.into(), 0x60, target)
        }
    }
}

/// Whether the director asks from its address among the clients.
fn is_from_front(frame: &[u8]) -> bool {
    [IpAddr::from(FRONT_DIP), IpAddr::from(FRONT_DIP6)].contains(&source(frame))
}

/// Says that a packet is too big, with the MTU that it would have fitted.
fn too_big(mac: MacAddr, who: IpAddr, frame: &[u8], mtu: usize) -> Vec<u8> {
    let quoted = &frame[14..frame.len().min(14 + 100)];
    let [high, low] = (mtu as u16).to_be_bytes();
    let rest = [0, 0, high, low];
    match who {
        IpAddr::V4(who) => FrameBuilder::new((mac, who.octets()), (BACK_MAC, BACK_DIP))
            .icmp_error(3, 4, rest, quoted),
        IpAddr::V6(source) => {
            let destination = <[u8; 16]>::try_from(&frame[22..38]).expect("sixteen").into();
            let packet = Packet6 { macs: (mac, BACK_MAC), source, destination, hop_limit: 64 };
            packet.icmp(2, 0, rest, quoted)
        }
    }
}

/// What answers an echo request: addresses, MACs and the type the other way round.
fn echo_reply(frame: &[u8]) -> Option<Vec<u8>> {
    let (addresses, len, start, request, reply) = match frame[12..14] {
        [0x08, 0x00] if frame[23] == 1 => (26, 4, 34, 8, 0),
        [0x86, 0xdd] if frame[20] == 58 => (22, 16, 54, 128, 129),
        _ => return None,
    };
    if frame[start] != request {
        return None;
    }
    let mut answer = frame.to_vec();
    answer[..6].copy_from_slice(&frame[6..12]);
    answer[6..12].copy_from_slice(&frame[..6]);
    let (source, destination) = (addresses, addresses + len);
    answer[source..destination].copy_from_slice(&frame[destination..destination + len]);
    answer[destination..destination + len].copy_from_slice(&frame[source..destination]);
    answer[start] = reply;
    // The sum changes by what the type's word does (RFC 1624).
    let sum = u16::from_be_bytes([frame[start + 2], frame[start + 3]]);
    let word = |kind: u8| u16::from(kind) << 8;
    let changed = u32::from(!sum) + u32::from(!word(request)) + u32::from(word(reply));
    let changed = (changed & 0xffff) + (changed >> 16);
    let changed = !((changed & 0xffff) + (changed >> 16)) as u16;
    answer[start + 2..start + 4].copy_from_slice(&changed.to_be_bytes());
    Some(answer)
}

#[derive(Default)]
struct Link {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}

//! A question over TCP: smoltcp's stack on a link of IP packets, one interface a question, so that
//! nothing is shared between real servers but the local ports.

use core::net::IpAddr;
use std::sync::Arc;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::super::instant::Instant;
use super::super::transmit::TransmitQueue;
use super::http::Verdict;
use super::https::{Preparation, Session};
use super::{Fault, Stage, Target, http, tls};
use crate::config::check::{HttpCheck, HttpsCheck};

/// Bytes of an answer that may be under way at a time.
const RECEIVE_BUFFER_LEN: usize = 4096;
/// Bytes of a question over TLS that may be under way at a time.
const SEND_BUFFER_LEN: usize = 2048;
/// Smaller a segment of IP packets cannot be (RFC 791, RFC 8200).
const MTU_MIN: u16 = 576;

/// What is said once a connection is accepted.
#[derive(Debug)]
pub(in crate::director) enum Dialogue {
    /// Nothing.
    Handshake,
    Http(HttpCheck),
    Https(HttpsCheck),
    /// The beginning of a TLS handshake, for a server of this name.
    Tls(Option<Arc<str>>),
}

/// Both ports of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub local: u16,
    pub remote: u16,
}

/// A connection and what is said over it.
pub(super) struct Stream {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    remote_port: u16,
    connected: bool,
    talk: Talk,
}

enum Talk {
    Handshake,
    Exchange {
        request: Vec<u8>,
        sent: usize,
        reader: Box<Reader>,
    },
    Secure(Box<Session>),
    /// It cannot be said.
    Mute(Fault),
}

/// Hears an answer as it comes.
enum Reader {
    Http(http::Reader),
    Tls(tls::Reader),
}

impl Reader {
    fn feed(&mut self, data: &[u8]) -> Verdict {
        match self {
            Reader::Http(reader) => reader.feed(data),
            Reader::Tls(reader) => reader.feed(data),
        }
    }

    fn has_begun(&self) -> bool {
        match self {
            Reader::Http(reader) => reader.has_begun(),
            Reader::Tls(reader) => reader.has_begun(),
        }
    }

    /// The connection has ended before it was clear.
    fn end(&mut self) -> Result<(), Fault> {
        match self {
            Reader::Http(reader) => reader.end(),
            Reader::Tls(_) => Err(Fault::Closed),
        }
    }
}

impl Stream {
    /// A connection about to be asked for; `None` where the addresses do not allow it.
    pub fn connect(
        now: Instant,
        target: &Target,
        ports: Ports,
        seed: u64,
        dialogue: Dialogue,
        preparation: &mut Preparation,
    ) -> Option<Stream> {
        let talk = match dialogue {
            Dialogue::Handshake => Talk::Handshake,
            Dialogue::Http(check) => {
                let request = http::request(&check);
                let reader = Reader::Http(http::Reader::new(check));
                Talk::Exchange { request, sent: 0, reader: Box::new(reader) }
            }
            Dialogue::Https(check) => match preparation.session(&check, target.destination) {
                Ok(session) => Talk::Secure(Box::new(session)),
                Err(fault) => Talk::Mute(fault),
            },
            Dialogue::Tls(name) => {
                let request = tls::client_hello(name.as_deref(), seed);
                let reader = Reader::Tls(tls::Reader::default());
                Talk::Exchange { request, sent: 0, reader: Box::new(reader) }
            }
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut nothing = TransmitQueue::default();
        let mut link = Link { target, transmit: &mut nothing, received: None };
        let mut interface = Interface::new(config, &mut link, stack_instant(now));
        // Of length 0: everything is on the link.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(address(target.source), 0));
        });
        let (receive, send) = match &talk {
            Talk::Handshake | Talk::Mute(_) => (1, 1),
            Talk::Secure(_) => (RECEIVE_BUFFER_LEN, SEND_BUFFER_LEN),
            Talk::Exchange { request, .. } => (RECEIVE_BUFFER_LEN, request.len()),
        };
        let mut socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; receive]),
            tcp::SocketBuffer::new(vec![0; send]),
        );
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let local = (address(target.source), ports.local);
        let remote = (address(target.destination), ports.remote);
        socket.connect(interface.context(), remote, local).ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let remote_port = ports.remote;
        Some(Stream { interface, sockets, handle, remote_port, connected: false, talk })
    }

    pub fn remote_port(&self) -> u16 {
        self.remote_port
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        match &self.talk {
            Talk::Exchange { reader, .. } if reader.has_begun() => Stage::Answering,
            Talk::Secure(session) if self.connected => session.stage(),
            _ if self.connected => Stage::Connected,
            _ => Stage::Asked,
        }
    }

    /// Takes in a packet, if there is one, and sends what is to be sent; the result once there is
    /// one, with a reset on its way.
    pub fn drive(
        &mut self,
        now: Instant,
        packet: Option<&[u8]>,
        target: &Target,
        transmit: &mut TransmitQueue,
    ) -> Option<Result<(), Fault>> {
        self.poll(now, packet, target, transmit);
        let result = self.talk();
        match result {
            None => self.poll(now, None, target, transmit),
            Some(_) => self.abort(now, target, transmit),
        }
        result
    }

    /// Ends the connection with a reset, so that neither end remembers it.
    pub fn abort(&mut self, now: Instant, target: &Target, transmit: &mut TransmitQueue) {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.handle).abort();
        self.poll(now, None, target, transmit);
    }

    /// When [`Self::drive`] is to be called at the latest.
    pub fn next_wake(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(stack_instant(now), &self.sockets)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        // Up, so that it is due then; and never at once, for that has just been done.
        let at = Instant::from_nanos(micros.saturating_add(1).saturating_mul(1000));
        Some(at.max(now + core::time::Duration::from_millis(1)))
    }

    fn poll(
        &mut self,
        now: Instant,
        received: Option<&[u8]>,
        target: &Target,
        transmit: &mut TransmitQueue,
    ) {
        let mut link = Link { target, transmit, received };
        self.interface.poll(stack_instant(now), &mut link, &mut self.sockets);
    }

    /// Says what is to be said next and hears what was answered.
    fn talk(&mut self) -> Option<Result<(), Fault>> {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        if !self.connected {
            match socket.state() {
                tcp::State::SynSent => return None,
                tcp::State::Closed => return Some(Err(Fault::Refused)),
                _ => self.connected = true,
            }
        }
        match &mut self.talk {
            Talk::Handshake => Some(Ok(())),
            Talk::Mute(fault) => Some(Err(fault.clone())),
            Talk::Secure(session) => {
                let mut verdict = None;
                while verdict.is_none() && socket.can_recv() {
                    verdict = socket.recv(|data| (data.len(), session.feed(data))).unwrap_or(None);
                }
                // An alert goes out even after the verdict: it tells the server's log why.
                if socket.can_send() {
                    let sent = socket.send_slice(session.to_send()).unwrap_or(0);
                    session.sent(sent);
                }
                if verdict.is_some() || socket.may_recv() {
                    return verdict;
                }
                Some(session.end())
            }
            Talk::Exchange { request, sent, reader } => {
                if *sent < request.len() && socket.can_send() {
                    *sent += socket.send_slice(&request[*sent..]).unwrap_or(0);
                }
                while socket.can_recv() {
                    let heard = socket.recv(|data| (data.len(), reader.feed(data)));
                    if let Ok(Some(verdict)) = heard {
                        return Some(verdict);
                    }
                }
                if socket.may_recv() || socket.state() == tcp::State::SynSent {
                    return None;
                }
                Some(reader.end())
            }
        }
    }
}

/// smoltcp's link: what it sends goes into the director's queue.
struct Link<'a> {
    target: &'a Target,
    transmit: &'a mut TransmitQueue,
    received: Option<&'a [u8]>,
}

struct Received<'a>(&'a [u8]);

struct Sending<'a> {
    target: &'a Target,
    transmit: &'a mut TransmitQueue,
}

impl Device for Link<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sending<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: StackInstant) -> Option<(Received<'_>, Sending<'_>)> {
        let received = self.received.take()?;
        Some((Received(received), Sending { target: self.target, transmit: self.transmit }))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sending<'_>> {
        Some(Sending { target: self.target, transmit: self.transmit })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.target.mtu.max(MTU_MIN));
        // The director has verified what came, where it is complete.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        self.target.send(self.transmit, len, write)
    }
}

fn address(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(address) => IpAddress::Ipv4(address),
        IpAddr::V6(address) => IpAddress::Ipv6(address),
    }
}

fn stack_instant(now: Instant) -> StackInstant {
    StackInstant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

//! A bounded, non-blocking server on a stream socket: what the control socket and the metrics
//! have in common.
//!
//! A client is served one step at a time, with one answer under way at most, so that neither a
//! slow client nor a busy one holds up the frames.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::director::Instant;

/// Bytes read at a time.
const READ_LEN: usize = 16 << 10;
/// Connections accepted at a time.
const ACCEPT_MAX: usize = 16;

/// Where clients come from.
pub(super) trait Listener {
    type Stream: Source + Read + Write;

    /// The next client that waits.
    fn accept(&self) -> io::Result<Self::Stream>;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).map(|(stream, _)| stream)
    }
}

/// How requests are told from each other, and how much a client may take.
pub(super) struct Manners<R> {
    pub clients_max: usize,
    /// Bytes of a request, at most.
    pub request_max: usize,
    /// A client that neither asks nor takes its answer for this long is let go.
    pub idle_max: Duration,
    /// The token of a client, by its key below `clients_max`.
    pub token: fn(usize) -> Token,
    /// Takes the next request out of what a client has sent; the flag says that no more comes.
    pub parse: fn(&mut Vec<u8>, bool) -> Parsed<R>,
    /// What a client gets that is one too many, or asks too much.
    pub refusal: fn(Refusal) -> Vec<u8>,
}

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooManyClients,
    RequestTooLong,
}

/// What [`Manners::parse`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<R> {
    Incomplete,
    Request(R),
}

/// What becomes of a request.
pub(super) enum Answer {
    /// These bytes, and then the next request.
    Next(Vec<u8>),
    /// These bytes, and then the end.
    Last(Vec<u8>),
    /// [`Server::answer`] will bring them.
    Later,
}

/// A client, for as long as it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    key: usize,
    serial: u64,
}

pub(super) struct Server<L: Listener, R> {
    listener: L,
    manners: Manners<R>,
    /// Whether more clients may be waiting to be accepted.
    accepting: bool,
    clients: Slab<Client<L::Stream>>,
    /// Clients with something to do, each once.
    ready: VecDeque<usize>,
    serial: u64,
}

struct Client<S> {
    stream: S,
    serial: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that are sent.
    sent: usize,
    phase: Phase,
    /// Whether the other side has said that nothing more comes.
    ended: bool,
    is_ready: bool,
    /// When it last got somewhere.
    progress: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its next request is taken when its answer is out.
    Asking,
    /// Its answer comes later.
    Waiting,
    /// It goes when its answer is out.
    Leaving,
}

/// What a step came to.
enum Step {
    /// There may be more to do at once.
    More,
    /// Nothing until the next event.
    Idle,
    Gone,
}

impl<L: Listener, R> Server<L, R> {
    pub fn new(listener: L, manners: Manners<R>) -> Server<L, R> {
        Server {
            listener,
            clients: Slab::with_capacity(manners.clients_max),
            ready: VecDeque::with_capacity(manners.clients_max),
            manners,
            accepting: true,
            serial: 0,
        }
    }

    pub fn listener_mut(&mut self) -> &mut L {
        &mut self.listener
    }

    /// Takes clients from another listener from now on; the one before. Clients stay, those who
    /// wait at the one before included.
    pub fn replace_listener(&mut self, registry: &Registry, now: Instant, listener: L) -> L {
        self.accept(registry, now);
        self.accepting = true;
        std::mem::replace(&mut self.listener, listener)
    }

    /// Notes that clients may be waiting to be accepted.
    pub fn wake_listener(&mut self) {
        self.accepting = true;
    }

    /// Notes that a client's stream may be readable or writable.
    pub fn wake_client(&mut self, key: usize) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.is_ready
        {
            client.is_ready = true;
            self.ready.push_back(key);
        }
    }

    /// Whether [`Self::work`] has something to do without an event.
    pub fn has_work(&self) -> bool {
        self.accepting || !self.ready.is_empty()
    }

    /// One step for each client with something to do: one request at most.
    pub fn work(
        &mut self,
        registry: &Registry,
        now: Instant,
        mut answer: impl FnMut(ClientId, R) -> Answer,
    ) {
        if self.accepting {
            self.accept(registry, now);
        }
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { return };
            let Some(client) = self.clients.get_mut(key) else { continue };
            client.is_ready = false;
            let id = ClientId { key, serial: client.serial };
            match client.step(&self.manners, now, |request| answer(id, request)) {
                Step::More => self.wake_client(key),
                Step::Idle => {}
                Step::Gone => self.remove(registry, key),
            }
        }
    }

    /// Brings an answer that was put off; a client that has left does not miss it.
    pub fn answer(&mut self, id: ClientId, now: Instant, bytes: Vec<u8>) {
        if let Some(client) = self.clients.get_mut(id.key)
            && client.serial == id.serial
        {
            client.put(bytes);
            client.phase = Phase::Asking;
            client.progress = now;
            self.wake_client(id.key);
        }
    }

    /// When [`Self::handle_timeout`] next may have something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let patience = self.clients.iter().filter(|(_, client)| client.phase != Phase::Waiting);
        patience.map(|(_, client)| client.progress + self.manners.idle_max).min()
    }

    /// Lets idle clients go.
    pub fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        let idle_max = self.manners.idle_max;
        let idle = self.clients.iter().filter(|(_, client)| {
            client.phase != Phase::Waiting && now.since(client.progress) >= idle_max
        });
        for key in idle.map(|(key, _)| key).collect::<Vec<_>>() {
            self.remove(registry, key);
        }
    }

    /// Closes everything, so that the listener can be dropped.
    pub fn close(&mut self, registry: &Registry) {
        for (_, client) in &mut self.clients {
            let _ = registry.deregister(&mut client.stream);
        }
        self.clients.clear();
        self.ready.clear();
        self.accepting = false;
    }

    fn accept(&mut self, registry: &Registry, now: Instant) {
        for _ in 0..ACCEPT_MAX {
            match self.listener.accept() {
                Ok(stream) => self.add(registry, now, stream),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Whoever still waits is accepted with the next one who comes.
                    self.accepting = false;
                    if error.kind() != ErrorKind::WouldBlock {
                        log::debug!("a client could not be accepted: {error}");
                    }
                    return;
                }
            }
        }
    }

    fn add(&mut self, registry: &Registry, now: Instant, mut stream: L::Stream) {
        if self.clients.len() >= self.manners.clients_max {
            // It fits into the socket's buffer or it does not matter.
            let _ = stream.write(&(self.manners.refusal)(Refusal::TooManyClients));
            return;
        }
        self.serial += 1;
        let entry = self.clients.vacant_entry();
        let key = entry.key();
        let token = (self.manners.token)(key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = registry.register(&mut stream, token, interest) {
            log::debug!("a client could not be waited for: {error}");
            return;
        }
        entry.insert(Client {
            stream,
            serial: self.serial,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            phase: Phase::Asking,
            ended: false,
            is_ready: false,
            progress: now,
        });
        self.wake_client(key);
    }

    fn remove(&mut self, registry: &Registry, key: usize) {
        self.ready.retain(|ready| *ready != key);
        if let Some(mut client) = self.clients.try_remove(key) {
            let _ = registry.deregister(&mut client.stream);
        }
    }
}

impl<S: Read + Write> Client<S> {
    fn step<R>(
        &mut self,
        manners: &Manners<R>,
        now: Instant,
        answer: impl FnOnce(R) -> Answer,
    ) -> Step {
        match self.flush(now) {
            Ok(true) => {}
            Ok(false) => return Step::Idle,
            Err(_) => return Step::Gone,
        }
        match self.phase {
            Phase::Leaving => return Step::Gone,
            Phase::Waiting => return Step::Idle,
            Phase::Asking => {}
        }
        if let Parsed::Request(request) = (manners.parse)(&mut self.input, self.ended) {
            self.progress = now;
            let (bytes, phase) = match answer(request) {
                Answer::Next(bytes) => (bytes, Phase::Asking),
                Answer::Last(bytes) => (bytes, Phase::Leaving),
                Answer::Later => (Vec::new(), Phase::Waiting),
            };
            self.put(bytes);
            self.phase = phase;
            return Step::More;
        }
        if self.input.len() > manners.request_max {
            self.put((manners.refusal)(Refusal::RequestTooLong));
            self.phase = Phase::Leaving;
            return Step::More;
        }
        if self.ended {
            return Step::Gone;
        }
        self.fill(now, manners.request_max)
    }

    /// Reads some more, up to one byte beyond what a request may have.
    fn fill(&mut self, now: Instant, request_max: usize) -> Step {
        let start = self.input.len();
        let room = (request_max + 1 - start).min(READ_LEN);
        self.input.resize(start + room, 0);
        let result = self.stream.read(&mut self.input[start..]);
        self.input.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => {
                self.ended = true;
                Step::More
            }
            Ok(_) => {
                self.progress = now;
                Step::More
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Idle,
            Err(error) if error.kind() == ErrorKind::Interrupted => Step::More,
            Err(_) => Step::Gone,
        }
    }

    fn put(&mut self, bytes: Vec<u8>) {
        self.output = bytes;
        self.sent = 0;
    }

    /// Sends what the socket takes; whether that was everything.
    fn flush(&mut self, now: Instant) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.sent += len;
                    self.progress = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

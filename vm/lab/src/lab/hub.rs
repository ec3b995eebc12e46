//! The network between the machines: a switch a segment, in a thread of this process.
//!
//! QEMU's `stream` network connects to a Unix socket and sends each frame after its length, four
//! bytes in network order. Frames go where the switch has seen their destination, else to all. A
//! segment may lose, delay or double frames, and have cables out; what passes is tallied and can
//! be captured. Nothing here needs privileges.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::faults::Faults;
use super::pcap;
use super::tally::Tally;

/// The longest frame QEMU sends: 64 KiB and headers.
const FRAME_MAX: usize = 69_632;
/// What may wait for a machine that does not read: then frames are lost, as in any switch.
const BACKLOG_MAX: usize = 4 << 20;
/// Stations a switch remembers.
const STATIONS_MAX: usize = 1024;
/// Frames that may be delayed at a time.
const DELAYED_MAX: usize = 16_384;
const WAKER: Token = Token(usize::MAX);

/// A cable: a machine's card on a segment.
#[derive(Clone, Debug)]
pub struct Cable {
    pub segment: String,
    pub machine: String,
    /// Where QEMU connects to.
    pub socket: PathBuf,
    /// Where the cable leads, if not into this process's switch: to somebody else's, who is the
    /// director as well.
    pub leads_to: Option<PathBuf>,
}

/// The running switches; they end when this is dropped.
pub struct Hub {
    orders: Sender<Order>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    tally: Arc<Mutex<Tally>>,
}

enum Order {
    Faults { segment: String, faults: Faults },
    Capture { segment: String, sink: Box<dyn Write + Send> },
    Stop,
}

impl Hub {
    pub fn start(cables: &[Cable]) -> io::Result<Hub> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (orders, received) = mpsc::channel();
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut switches = Switches::new(poll, received, Arc::clone(&tally));
        for cable in cables {
            switches.add(cable)?;
        }
        let thread = thread::Builder::new().name("hub".to_owned()).spawn(move || switches.run())?;
        Ok(Hub { orders, waker, thread: Some(thread), tally })
    }

    /// What a segment does to frames from now on.
    pub fn set_faults(&self, segment: &str, faults: Faults) {
        self.order(Order::Faults { segment: segment.to_owned(), faults });
    }

    /// Writes every frame of a segment, from now on, as a pcap file, until `sink` takes no more.
    pub fn capture(&self, segment: &str, sink: Box<dyn Write + Send>) {
        self.order(Order::Capture { segment: segment.to_owned(), sink });
    }

    /// What has passed since the last [`Self::forget`].
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins to count afresh.
    pub fn forget(&self) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = Tally::default();
    }

    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        let _ = self.waker.wake();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One side of a cable.
struct Socket {
    segment: String,
    machine: String,
    end: End,
    /// The other side, where the cable leads to somebody else's switch.
    peer: Option<usize>,
    stream: Option<UnixStream>,
    received: Vec<u8>,
    waiting: VecDeque<u8>,
}

enum End {
    /// QEMU connects to it.
    Listener(UnixListener),
    /// It connects to a switch.
    Switch(PathBuf),
}

#[derive(Default)]
struct Segment {
    faults: Faults,
    /// The socket behind which a MAC address was last seen.
    stations: HashMap<[u8; 6], usize>,
    captures: Vec<Box<dyn Write + Send>>,
}

/// When a frame goes, its number, the socket, the frame.
type Delayed = (Instant, u64, usize, Vec<u8>);

struct Switches {
    poll: Poll,
    orders: Receiver<Order>,
    stopping: bool,
    tally: Arc<Mutex<Tally>>,
    sockets: Vec<Socket>,
    segments: BTreeMap<String, Segment>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    sequence: u64,
    random: u64,
}

impl Switches {
    fn new(poll: Poll, orders: Receiver<Order>, tally: Arc<Mutex<Tally>>) -> Switches {
        Switches {
            poll,
            orders,
            stopping: false,
            tally,
            sockets: Vec::new(),
            segments: BTreeMap::new(),
            delayed: BinaryHeap::new(),
            sequence: 0,
            // Any but zero: what is lost is the same in every run with the same frames.
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn add(&mut self, cable: &Cable) -> io::Result<()> {
        let mut listener = UnixListener::bind(&cable.socket)?;
        let index = self.sockets.len();
        self.poll.registry().register(&mut listener, Token(index * 2), Interest::READABLE)?;
        self.segments.entry(cable.segment.clone()).or_default();
        let socket = |end, peer| Socket {
            segment: cable.segment.clone(),
            machine: cable.machine.clone(),
            end,
            peer,
            stream: None,
            received: Vec::new(),
            waiting: VecDeque::new(),
        };
        let end = End::Listener(listener);
        match &cable.leads_to {
            None => self.sockets.push(socket(end, None)),
            Some(path) => {
                self.sockets.push(socket(end, Some(index + 1)));
                self.sockets.push(socket(End::Switch(path.clone()), Some(index)));
            }
        }
        Ok(())
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let now = Instant::now();
            let due =
                self.delayed.peek().map(|Reverse((at, ..))| at.saturating_duration_since(now));
            // The poll rounds up to milliseconds; that is delay enough.
            match self.poll.poll(&mut events, due) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return,
                _ => {}
            }
            self.obey();
            if self.stopping {
                return;
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(token) if token % 2 == 0 => self.accept(token / 2),
                    Token(token) => {
                        self.receive(token / 2);
                        self.flush(token / 2);
                    }
                }
            }
            self.deliver_delayed();
        }
    }

    /// Does what was ordered. Between reading a frame and switching it as well: so what is sent
    /// after an order was given is under it.
    fn obey(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Stop => self.stopping = true,
                Order::Faults { segment, faults } => {
                    self.segments.entry(segment).or_default().faults = faults;
                }
                Order::Capture { segment, mut sink } => {
                    if sink.write_all(&pcap::header()).is_ok() {
                        self.segments.entry(segment).or_default().captures.push(sink);
                    }
                }
            }
        }
    }

    fn accept(&mut self, index: usize) {
        while let End::Listener(listener) = &self.sockets[index].end
            && let Ok((stream, _)) = listener.accept()
        {
            self.connected(index, stream);
        }
        self.receive(index);
    }

    fn connected(&mut self, index: usize, mut stream: UnixStream) {
        let token = Token(index * 2 + 1);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, token, interest).is_ok() {
            let socket = &mut self.sockets[index];
            socket.received.clear();
            socket.waiting.clear();
            socket.stream = Some(stream);
        }
    }

    fn receive(&mut self, index: usize) {
        let mut buffer = [0; 65_536];
        loop {
            let socket = &mut self.sockets[index];
            let Some(stream) = &mut socket.stream else { return };
            match stream.read(&mut buffer) {
                Ok(0) => return socket.stream = None,
                Ok(len) => socket.received.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return socket.stream = None,
            }
            self.obey();
            let mut taken = 0;
            while let Some((frame, next)) = next_frame(&self.sockets[index].received, taken) {
                let Ok(frame) = frame else {
                    self.sockets[index].stream = None;
                    return;
                };
                taken = next;
                self.switch(index, &frame);
            }
            self.sockets[index].received.drain(..taken);
        }
    }

    fn switch(&mut self, from: usize, frame: &[u8]) {
        let (name, machine) =
            (self.sockets[from].segment.clone(), self.sockets[from].machine.clone());
        let Some(segment) = self.segments.get_mut(&name) else { return };
        let faults = segment.faults.clone();
        let (Some(to), Some(source)) = (address(frame, 0), address(frame, 6)) else { return };
        if faults.is_cut(&machine) {
            return;
        }
        if let Some(peer) = self.sockets[from].peer {
            return self.carry(from, peer, frame, &faults);
        }
        if source[0] & 1 == 0
            && (segment.stations.len() < STATIONS_MAX || segment.stations.contains_key(&source))
        {
            segment.stations.insert(source, from);
        }
        let known = (to[0] & 1 == 0).then(|| segment.stations.get(&to).copied()).flatten();
        segment.captures.retain_mut(|sink| sink.write_all(&pcap::record(frame)).is_ok());
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).note(&name, &machine, frame);
        let targets: Vec<usize> = match known {
            Some(target) if target == from => return,
            Some(target) => vec![target],
            None => (0..self.sockets.len())
                .filter(|index| *index != from && self.sockets[*index].segment == name)
                .collect(),
        };
        self.pass(&targets, frame, &faults);
    }

    /// A frame on a cable that leads to somebody else's switch. What comes from there comes from
    /// another machine, and is known, or from the director.
    fn carry(&mut self, from: usize, peer: usize, frame: &[u8], faults: &Faults) {
        let Socket { segment: name, machine, end, .. } = &self.sockets[from];
        let (name, machine) = (name.clone(), machine.clone());
        let comes_from_switch = matches!(end, End::Switch(_));
        let Some(segment) = self.segments.get_mut(&name) else { return };
        let (Some(to), Some(source)) = (address(frame, 0), address(frame, 6)) else { return };
        let mut sender = Some(machine.as_str());
        if comes_from_switch {
            // What is for all comes by every cable.
            let first = self
                .sockets
                .iter()
                .position(|socket| socket.segment == name && matches!(socket.end, End::Switch(_)));
            let is_new =
                !segment.stations.contains_key(&source) && (to[0] & 1 == 0 || first == Some(from));
            sender = is_new.then_some("director");
        } else if segment.stations.len() < STATIONS_MAX {
            segment.stations.insert(source, from);
        }
        if let Some(sender) = sender {
            segment.captures.retain_mut(|sink| sink.write_all(&pcap::record(frame)).is_ok());
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).note(&name, sender, frame);
        }
        if comes_from_switch {
            return self.pass(&[peer], frame, faults);
        }
        // Faults happen on the way to a machine.
        if self.sockets[peer].stream.is_none()
            && let End::Switch(path) = &self.sockets[peer].end
            && let Ok(stream) = UnixStream::connect(path)
        {
            self.connected(peer, stream);
        }
        self.deliver(peer, frame);
    }

    fn pass(&mut self, targets: &[usize], frame: &[u8], faults: &Faults) {
        for &target in targets {
            if faults.is_cut(&self.sockets[target].machine) || self.chance(faults.loss) {
                continue;
            }
            let copies = if self.chance(faults.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                match faults.delay() {
                    Some(delay) if self.delayed.len() < DELAYED_MAX => {
                        self.sequence += 1;
                        let at = Instant::now() + delay;
                        self.delayed.push(Reverse((at, self.sequence, target, frame.to_vec())));
                    }
                    Some(_) => {}
                    None => self.deliver(target, frame),
                }
            }
        }
    }

    fn deliver_delayed(&mut self) {
        let now = Instant::now() + Duration::from_micros(500);
        while self.delayed.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((_, _, target, frame))) = self.delayed.pop() {
                self.deliver(target, &frame);
            }
        }
    }

    fn deliver(&mut self, target: usize, frame: &[u8]) {
        let socket = &mut self.sockets[target];
        if socket.stream.is_none() || socket.waiting.len() + frame.len() > BACKLOG_MAX {
            return;
        }
        let len = u32::try_from(frame.len()).unwrap_or_default();
        socket.waiting.extend(len.to_be_bytes());
        socket.waiting.extend(frame);
        self.flush(target);
    }

    fn flush(&mut self, index: usize) {
        let socket = &mut self.sockets[index];
        while !socket.waiting.is_empty() {
            let Some(stream) = &mut socket.stream else { return socket.waiting.clear() };
            match stream.write(socket.waiting.as_slices().0) {
                Ok(len) => drop(socket.waiting.drain(..len)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => socket.stream = None,
            }
        }
    }

    /// Whether something of this probability happens now.
    fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        // Marsaglia's xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64 <= probability
    }
}

fn address(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..at + 6)?.try_into().ok()
}

/// The frame at `at`, if it is whole, and where the next one begins. An error if its length makes
/// no sense: then there is no telling where the next one is.
fn next_frame(received: &[u8], at: usize) -> Option<(Result<Vec<u8>, ()>, usize)> {
    let start = at + 4;
    let len = u32::from_be_bytes(received.get(at..start)?.try_into().ok()?) as usize;
    if len > FRAME_MAX {
        return Some((Err(()), start));
    }
    let frame = received.get(start..start + len)?;
    Some((Ok(frame.to_vec()), start + len))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Client;

    use super::*;

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    struct Fixture {
        hub: Hub,
        clients: Vec<Client>,
        _directory: tempfile::TempDir,
    }

    impl Fixture {
        /// Machines a, b and c on one segment, d on another.
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let cable = |segment: &str, machine: &str| Cable {
                segment: segment.to_owned(),
                machine: machine.to_owned(),
                socket: directory.path().join(machine),
                leads_to: None,
            };
            let cables =
                [cable("lan", "a"), cable("lan", "b"), cable("lan", "c"), cable("other", "d")];
            let hub = Hub::start(&cables).unwrap();
            let clients = cables.iter().map(|cable| {
                let client = Client::connect(&cable.socket).unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client
            });
            Fixture { clients: clients.collect(), hub, _directory: directory }
        }

        fn send(&mut self, from: usize, frame: &[u8]) {
            let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
            bytes.extend_from_slice(frame);
            // In two pieces, as a stream may deliver it.
            let (first, second) = bytes.split_at(6);
            self.clients[from].write_all(first).unwrap();
            self.clients[from].write_all(second).unwrap();
        }

        fn receive(&mut self, at: usize) -> Vec<u8> {
            let mut len = [0; 4];
            self.clients[at].read_exact(&mut len).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(len) as usize];
            self.clients[at].read_exact(&mut frame).unwrap();
            frame
        }
    }

    fn frame(to: u8, from: u8, mark: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5];
        if to == 0xff {
            frame[..6].fill(0xff);
        }
        frame.resize(60, mark);
        frame
    }

    #[test]
    fn frames_go_to_all_until_their_station_is_known_and_never_to_another_segment() {
        let mut fixture = Fixture::new();
        // Everyone is connected when it has been heard.
        fixture.send(3, &frame(0xff, 4, 0));
        fixture.send(2, &frame(0xff, 3, 0));
        assert_eq!(fixture.receive(0), frame(0xff, 3, 0));
        assert_eq!(fixture.receive(1), frame(0xff, 3, 0));
        fixture.send(1, &frame(1, 2, 1));
        assert_eq!(fixture.receive(0), frame(1, 2, 1), "not known yet: to all");
        assert_eq!(fixture.receive(2), frame(1, 2, 1));
        fixture.send(0, &frame(2, 1, 2));
        fixture.send(0, &frame(3, 1, 3));
        assert_eq!(fixture.receive(1), frame(2, 1, 2));
        assert_eq!(fixture.receive(2), frame(3, 1, 3), "and not the one for b before");
    }

    #[test]
    fn a_cable_that_is_out_carries_nothing_and_works_again_when_it_is_in() {
        let mut fixture = Fixture::new();
        fixture.send(2, &frame(0xff, 3, 0));
        fixture.receive(0);
        fixture.receive(1);
        let faults = Faults { cut: vec!["b".to_owned()], ..Faults::default() };
        fixture.hub.set_faults("lan", faults);
        fixture.send(0, &frame(0xff, 1, 1));
        assert_eq!(fixture.receive(2), frame(0xff, 1, 1));
        fixture.hub.set_faults("lan", Faults::default());
        fixture.send(0, &frame(0xff, 1, 2));
        assert_eq!(fixture.receive(2), frame(0xff, 1, 2));
        assert_eq!(fixture.receive(1), frame(0xff, 1, 2), "the one before was lost");
    }

    #[test]
    fn a_segment_can_lose_everything_or_double_everything_and_late() {
        let mut fixture = Fixture::new();
        fixture.send(2, &frame(0xff, 3, 0));
        fixture.receive(0);
        fixture.hub.set_faults("lan", Faults { loss: 1.0, ..Faults::default() });
        fixture.send(0, &frame(3, 1, 1));
        // Its turn is over when this is on the other segment's tally.
        while fixture.hub.tally().frames("lan") < 2 {
            thread::yield_now();
        }
        let faults = Faults { duplicate: 1.0, delay_ms: 1, ..Faults::default() };
        fixture.hub.set_faults("lan", faults);
        fixture.send(0, &frame(3, 1, 2));
        assert_eq!(fixture.receive(2), frame(3, 1, 2));
        assert_eq!(fixture.receive(2), frame(3, 1, 2));
    }

    #[test]
    fn a_cable_may_lead_to_another_switch_and_what_comes_from_there_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let switch = std::os::unix::net::UnixListener::bind(path("switch")).unwrap();
        let cables = ["a", "b"].map(|machine| Cable {
            segment: "lan".to_owned(),
            machine: machine.to_owned(),
            socket: path(machine),
            leads_to: Some(path("switch")),
        });
        let hub = Hub::start(&cables).unwrap();
        let mut clients = Vec::from(cables.map(|cable| Client::connect(cable.socket).unwrap()));
        for client in &mut clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let mut fixture = Fixture { hub, clients, _directory: directory };
        // Each cable is a connection of its own, made for its first frame.
        for index in 0..2 {
            let sent = frame(9, index as u8 + 1, 0);
            fixture.send(index, &sent);
            let (stream, _) = switch.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            fixture.clients.push(stream);
            assert_eq!(fixture.receive(index + 2), sent);
        }
        let tally = |fixture: &Fixture| fixture.hub.tally().frames("lan");
        assert_eq!(tally(&fixture), 2);
        // From one machine to the other, by way of the switch: it was counted as it came.
        fixture.send(0, &frame(2, 1, 1));
        assert_eq!(fixture.receive(2), frame(2, 1, 1));
        fixture.send(3, &frame(2, 1, 1));
        assert_eq!(fixture.receive(1), frame(2, 1, 1));
        assert_eq!(tally(&fixture), 3);
        // From the switch itself, to one and to all.
        fixture.send(2, &frame(1, 9, 2));
        assert_eq!(fixture.receive(0), frame(1, 9, 2));
        for index in 0..2 {
            fixture.send(index + 2, &frame(0xff, 9, 3));
            assert_eq!(fixture.receive(index), frame(0xff, 9, 3));
        }
        assert_eq!(tally(&fixture), 5);
        // A cable that is out carries nothing either way.
        let faults = Faults { cut: vec!["a".to_owned()], ..Faults::default() };
        fixture.hub.set_faults("lan", faults);
        fixture.send(0, &frame(9, 1, 4));
        fixture.send(2, &frame(1, 9, 4));
        // Those are through when these are, each of which is another look at all cables.
        for _ in 0..8 {
            fixture.send(1, &frame(9, 2, 5));
            assert_eq!(fixture.receive(3), frame(9, 2, 5));
        }
        fixture.hub.set_faults("lan", Faults::default());
        fixture.send(2, &frame(1, 9, 6));
        assert_eq!(fixture.receive(0), frame(1, 9, 6), "the one before was lost");
        fixture.send(0, &frame(9, 1, 7));
        assert_eq!(fixture.receive(2), frame(9, 1, 7), "and this way as well");
    }

    #[test]
    fn a_length_that_makes_no_sense_ends_the_connection() {
        assert!(next_frame(&[0, 0, 0], 0).is_none());
        assert!(next_frame(&[0, 0, 0, 2, 7], 0).is_none());
        assert_eq!(next_frame(&[0, 0, 0, 2, 7, 8, 9], 0), Some((Ok(vec![7, 8]), 6)));
        assert!(matches!(next_frame(&[0xff; 8], 0), Some((Err(()), _))));
    }
}

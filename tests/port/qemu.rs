//! Ports that are the network of virtual machines. The machines here are sockets of this test's,
//! which speak as QEMU does; real ones are in the lab (`make vm-lab-test`, story `host`).

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tempfile::TempDir;
use vipr::port::qemu::MACHINES_MAX;
use vipr::port::{Batch, OpenError, Port, QemuConfig, QemuPort, Readiness};
use vipr::wire::{MacAddr, Offload};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const DIRECTOR: MacAddr = MacAddr([0x02, 0, 0, 0, 1, 1]);
const ALL: MacAddr = MacAddr([0xff; 6]);

/// A port, waited for as the router does.
struct Fixture {
    port: QemuPort,
    poll: Poll,
    batch: Batch,
    folder: TempDir,
}

fn listening(folder: &TempDir) -> PathBuf {
    folder.path().join("front.sock")
}

fn open(listen: Option<&Path>, connect: &[&Path]) -> Result<QemuPort, OpenError> {
    QemuPort::open(&QemuConfig {
        mac: DIRECTOR,
        mtu: None,
        listen: listen.map(|path| path.to_str().unwrap()),
        connect: connect.iter().map(|path| path.to_str().unwrap()).collect(),
    })
}

impl Fixture {
    /// One that machines connect to.
    fn new() -> Fixture {
        let folder = TempDir::new().unwrap();
        let port = open(Some(&listening(&folder)), &[]).unwrap();
        Fixture::of(port, folder)
    }

    fn of(port: QemuPort, folder: TempDir) -> Fixture {
        let poll = Poll::new().unwrap();
        let descriptor = port.descriptor();
        poll.registry().register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE).unwrap();
        Fixture { port, poll, batch: Batch::new(4), folder }
    }

    fn machine(&self) -> Machine {
        Machine::of(UnixStream::connect(listening(&self.folder)).unwrap())
    }

    /// What has arrived for the director, read until there is no more.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            self.batch.clear();
            let readiness = self.port.receive(&mut self.batch).unwrap();
            frames.extend(self.batch.iter().map(<[u8]>::to_vec));
            if readiness == Readiness::Drained {
                return frames;
            }
        }
    }

    /// The same, but first waits for an event each time, as edge-triggered readiness has it, until
    /// `done` says that it was all.
    fn receive_until(
        &mut self,
        mut done: impl FnMut(&QemuPort, &[Vec<u8>]) -> bool,
    ) -> Vec<Vec<u8>> {
        let (mut frames, end) = (self.receive(), Instant::now() + PATIENCE);
        let mut events = Events::with_capacity(4);
        while !done(&self.port, &frames) {
            assert!(Instant::now() < end, "in vain: {} frames", frames.len());
            self.poll.poll(&mut events, Some(PATIENCE)).unwrap();
            frames.extend(self.receive());
        }
        frames
    }

    fn receive_count(&mut self, count: usize) -> Vec<Vec<u8>> {
        self.receive_until(|_, frames| frames.len() >= count)
    }

    fn send(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.port.send(frame, Offload::default())
    }

    /// Lets the port know where machines are: each says something to everyone.
    fn introduce(&mut self, machines: &mut [Machine]) {
        for (number, machine) in machines.iter_mut().enumerate() {
            machine.send(&frame(ALL, station(number), 0));
            assert_eq!(self.receive_count(1), [frame(ALL, station(number), 0)]);
        }
        for (number, machine) in machines.iter_mut().enumerate() {
            machine.heard = Vec::new();
            // Those who came later have heard less.
            machine.drain();
            assert!(machine.heard.iter().all(|heard| *heard != frame(ALL, station(number), 0)));
            machine.heard = Vec::new();
        }
    }
}

/// The far end of a connection.
struct Machine {
    stream: UnixStream,
    heard: Vec<Vec<u8>>,
}

impl Machine {
    fn of(stream: UnixStream) -> Machine {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Machine { stream, heard: Vec::new() }
    }

    fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(&framed(frame)).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        frame
    }

    /// Takes down what is here already.
    fn drain(&mut self) {
        self.stream.set_nonblocking(true).unwrap();
        let mut bytes = Vec::new();
        let result = self.stream.read_to_end(&mut bytes);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).unwrap();
        let mut rest = &bytes[..];
        while let Some((len, after)) = rest.split_first_chunk() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            self.heard.push(frame.to_vec());
            rest = after;
        }
    }

    fn is_silent(&mut self) -> bool {
        self.drain();
        self.heard.is_empty()
    }

    /// Whether the port has closed the connection.
    fn is_disconnected(&mut self) -> bool {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).is_ok()
    }
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

fn station(number: usize) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, number as u8])
}

fn frame(to: MacAddr, from: MacAddr, mark: u8) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &[0x88, 0xb5]].concat();
    frame.resize(60, mark);
    frame
}

#[test]
fn machines_and_the_director_reach_each_other_and_only_those_they_mean() {
    let mut fixture = Fixture::new();
    assert!(!fixture.port.condition().unwrap().running, "there is nobody yet");
    let mut machines = [fixture.machine(), fixture.machine(), fixture.machine()];
    fixture.introduce(&mut machines);
    assert!(fixture.port.condition().unwrap().running);

    // To the director, and to nobody else.
    machines[0].send(&frame(DIRECTOR, station(0), 1));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(0), 1)]);
    // From one machine to another, past the director; then something for it, to wait for.
    machines[0].send(&frame(station(1), station(0), 2));
    machines[0].send(&frame(DIRECTOR, station(0), 3));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(0), 3)]);
    assert_eq!(machines[1].receive(), frame(station(1), station(0), 2));
    // To a machine of which nothing is known: to all.
    machines[2].send(&frame(station(9), station(2), 4));
    assert_eq!(fixture.receive_count(1), [frame(station(9), station(2), 4)]);
    for machine in &mut machines[..2] {
        assert_eq!(machine.receive(), frame(station(9), station(2), 4));
    }
    // From the director: to one, and to all.
    fixture.send(&frame(station(2), DIRECTOR, 5)).unwrap();
    fixture.port.flush().unwrap();
    assert_eq!(machines[2].receive(), frame(station(2), DIRECTOR, 5));
    fixture.send(&frame(ALL, DIRECTOR, 6)).unwrap();
    fixture.port.flush().unwrap();
    for machine in &mut machines {
        assert_eq!(machine.receive(), frame(ALL, DIRECTOR, 6));
        assert!(machine.is_silent(), "{:?}", machine.heard);
    }
    assert_eq!(fixture.port.condition().unwrap().missed, 0);
    assert_eq!(fixture.port.mtu().unwrap(), 1500);
}

#[test]
fn a_machine_that_moved_is_found_where_it_is_and_nobody_takes_the_directors_place() {
    let mut fixture = Fixture::new();
    let mut machines = [fixture.machine(), fixture.machine()];
    fixture.introduce(&mut machines);
    machines[1].send(&frame(DIRECTOR, station(0), 1));
    fixture.receive_count(1);
    fixture.send(&frame(station(0), DIRECTOR, 2)).unwrap();
    fixture.port.flush().unwrap();
    assert_eq!(machines[1].receive(), frame(station(0), DIRECTOR, 2));
    // One with the director's own address.
    machines[1].send(&frame(ALL, DIRECTOR, 3));
    fixture.receive_count(1);
    assert_eq!(machines[0].receive(), frame(ALL, DIRECTOR, 3));
    machines[0].send(&frame(DIRECTOR, station(5), 4));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(5), 4)]);
    assert!(machines[1].is_silent());
    // Where a machine was, nothing is sent any more.
    drop(machines);
    fixture.receive_until(|port, _| !port.condition().unwrap().running);
    fixture.send(&frame(station(0), DIRECTOR, 5)).unwrap();
    let mut late = fixture.machine();
    late.send(&frame(DIRECTOR, station(7), 6));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(7), 6)]);
    fixture.send(&frame(station(0), DIRECTOR, 7)).unwrap();
    fixture.port.flush().unwrap();
    assert_eq!(late.receive(), frame(station(0), DIRECTOR, 7), "known no longer: to all");
}

#[test]
fn more_frames_than_a_batch_or_a_read_has_come_whole_and_in_order() {
    let mut fixture = Fixture::new();
    let mut machines = [fixture.machine(), fixture.machine()];
    fixture.introduce(&mut machines);
    let count = 3000;
    let [mut one, mut other] = machines;
    let sender = std::thread::spawn(move || {
        for number in 0..count {
            // Of all lengths, in pieces that have nothing to do with frames.
            let mut sent = frame(DIRECTOR, station(0), number as u8);
            sent.resize(60 + number * 7 % 1455, 0);
            let bytes = framed(&sent);
            let (first, second) = bytes.split_at(number % bytes.len());
            one.stream.write_all(first).unwrap();
            one.stream.write_all(second).unwrap();
            if number % 2 == 0 {
                one.send(&frame(station(1), station(0), number as u8));
            }
        }
        one
    });
    let mut heard = 0;
    let received = fixture.receive_until(|_, frames| {
        // So that nothing is lost for want of room.
        other.drain_into(&mut heard);
        frames.len() >= count
    });
    sender.join().unwrap();
    for (number, frame) in received.iter().enumerate() {
        assert_eq!((frame.len(), frame[20]), (60 + number * 7 % 1455, number as u8));
    }
    while heard < count / 2 {
        other.receive();
        heard += 1;
    }
    assert_eq!(fixture.port.condition().unwrap().missed, 0);
}

impl Machine {
    /// Counts what is here of frames of 60 bytes.
    fn drain_into(&mut self, count: &mut usize) {
        let mut peeked = [0; 64];
        self.stream.set_nonblocking(true).unwrap();
        while rustix::net::recv(&self.stream, &mut peeked[..], rustix::net::RecvFlags::PEEK)
            .is_ok_and(|(_, len)| len == peeked.len())
        {
            self.stream.read_exact(&mut peeked).unwrap();
            *count += 1;
        }
        self.stream.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_machine_that_does_not_read_loses_frames_and_keeps_nobody_waiting() {
    let mut fixture = Fixture::new();
    let mut machines = [fixture.machine(), fixture.machine()];
    fixture.introduce(&mut machines);
    let big = |to: usize, mark: u8| {
        let mut big = frame(station(to), DIRECTOR, mark);
        big.resize(1514, mark);
        big
    };
    let mut accepted = 0;
    // It reads nothing: first the stream is full, then what may wait.
    let refused = loop {
        match fixture.send(&big(0, 1)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        fixture.port.flush().unwrap();
        assert!(accepted < 100_000, "there is no end to it");
    };
    assert_eq!(refused.raw_os_error(), Some(libc::ENOBUFS));
    assert!(accepted > 1000, "a burst finds room: {accepted}");
    // What other machines send to it is lost as well, and counted.
    machines[1].send(&frame(station(0), station(1), 2));
    let mut large = frame(station(0), station(1), 2);
    large.resize(1514, 2);
    machines[1].send(&large);
    machines[1].send(&frame(DIRECTOR, station(1), 3));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(1), 3)]);
    let missed = fixture.port.condition().unwrap().missed;
    assert!(missed >= 1, "the large one at least found no room");
    // The other is not concerned.
    fixture.send(&frame(station(1), DIRECTOR, 4)).unwrap();
    fixture.port.flush().unwrap();
    assert_eq!(machines[1].receive(), frame(station(1), DIRECTOR, 4));
    // When it reads again, all that was taken comes, by itself.
    let [mut sleeper, mut other] = machines;
    let reader = std::thread::spawn(move || {
        for _ in 0..accepted {
            assert_eq!(sleeper.receive().len(), 1514);
        }
        // Something to be waited for.
        sleeper.send(&frame(DIRECTOR, station(0), 9));
        sleeper
    });
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(0), 9)]);
    reader.join().unwrap();
    other.send(&frame(DIRECTOR, station(1), 10));
    fixture.receive_count(1);
}

#[test]
fn who_speaks_no_sense_is_disconnected_and_the_others_are_not() {
    let mut fixture = Fixture::new();
    let mut machines = [fixture.machine(), fixture.machine()];
    fixture.introduce(&mut machines);
    machines[0].send(&frame(DIRECTOR, station(0), 1));
    machines[0].stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(
        fixture.receive_count(1),
        [frame(DIRECTOR, station(0), 1)],
        "what came before counts"
    );
    machines[1].send(&frame(DIRECTOR, station(1), 2));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(1), 2)]);
    assert!(machines[0].is_disconnected());
    // A frame without an Ethernet header is none, and no reason to part.
    machines[1].send(&[1; 13]);
    machines[1].send(&[]);
    machines[1].send(&frame(DIRECTOR, station(1), 3));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(1), 3)]);
    assert_eq!(fixture.port.condition().unwrap().missed, 2);
}

#[test]
fn there_is_a_limit_to_machines_and_room_again_when_one_has_gone() {
    let mut fixture = Fixture::new();
    let mut machines: Vec<Machine> = Vec::new();
    for number in 0..MACHINES_MAX {
        machines.push(fixture.machine());
        // The queue of connections is shorter than that.
        machines[number].send(&frame(DIRECTOR, station(number), 0));
        fixture.receive_count(1);
    }
    let mut one_too_many = fixture.machine();
    machines[0].send(&frame(DIRECTOR, station(0), 1));
    fixture.receive_count(1);
    // It may be looked at after the frame.
    fixture.receive();
    assert!(one_too_many.is_disconnected());
    machines.pop();
    fixture.receive();
    let mut another = fixture.machine();
    another.send(&frame(DIRECTOR, station(200), 2));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(200), 2)]);
}

#[test]
fn machines_that_listen_are_connected_to_whenever_they_come() {
    let folder = TempDir::new().unwrap();
    let [here, late] = ["here", "late"].map(|name| folder.path().join(name));
    let listener = UnixListener::bind(&here).unwrap();
    let port = open(None, &[&here, &late]).unwrap();
    let mut fixture = Fixture::of(port, folder);
    let mut first = Machine::of(listener.accept().unwrap().0);
    first.send(&frame(DIRECTOR, station(0), 1));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(0), 1)]);
    // The other comes late.
    let listener_late = UnixListener::bind(&late).unwrap();
    listener_late.set_nonblocking(true).unwrap();
    let mut accepted = None;
    fixture.receive_until(|_, _| {
        accepted = accepted.take().or_else(|| listener_late.accept().ok());
        accepted.is_some()
    });
    let stream = accepted.unwrap().0;
    stream.set_nonblocking(false).unwrap();
    let mut second = Machine::of(stream);
    second.send(&frame(station(0), station(1), 2));
    second.send(&frame(DIRECTOR, station(1), 3));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(1), 3)]);
    assert_eq!(first.receive(), frame(station(0), station(1), 2));
    // And one that was started again.
    drop(first);
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    fixture.receive_until(|_, _| {
        accepted = accepted.take().or_else(|| listener.accept().ok());
        accepted.is_some()
    });
    let stream = accepted.unwrap().0;
    stream.set_nonblocking(false).unwrap();
    let mut again = Machine::of(stream);
    again.send(&frame(DIRECTOR, station(0), 4));
    assert_eq!(fixture.receive_count(1), [frame(DIRECTOR, station(0), 4)]);
}

#[test]
fn a_socket_is_taken_over_from_the_dead_only_and_goes_with_its_port() {
    let folder = TempDir::new().unwrap();
    let path = listening(&folder);
    let port = open(Some(&path), &[]).unwrap();
    assert_eq!(port.path(), Some(&*path));
    let taken = open(Some(&path), &[]).err().unwrap();
    assert!(matches!(taken, OpenError::SocketTaken { .. }), "{taken}");
    drop(port);
    assert!(!path.exists());
    // One whose listener has died without removing it.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(open(Some(&path), &[]).unwrap());
    std::fs::write(&path, "a letter").unwrap();
    let other = open(Some(&path), &[]).err().unwrap();
    assert!(matches!(other, OpenError::NotASocket { .. }), "{other}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a letter");
    let nowhere = open(Some(&folder.path().join("none/x")), &[]).err().unwrap();
    assert!(nowhere.to_string().contains("make its directory"), "{nowhere}");
}

/// The router as a process of its own: only of that can the descriptors be used up without harm.
#[test]
fn a_router_without_descriptors_lets_machines_in_as_soon_as_it_has_some() {
    let folder = TempDir::new().unwrap();
    let socket = listening(&folder);
    let config = folder.path().join("vipr.toml");
    let text = format!(
        r#"
        [router]
        control_socket = "{control}"
        [segment.front]
        role = "both"
        attach = "qemu"
        socket = "{socket}"
        mac = "02:00:00:00:01:01"
        [[service]]
        vip = "192.0.2.10"
        protocol = "tcp"
        ports = 80
        real_server = [{{ name = "rs1", address = "192.0.2.11", mac = "52:54:00:00:00:11" }}]
        "#,
        control = folder.path().join("vipr.sock").display(),
        socket = socket.display(),
    );
    std::fs::write(&config, text).unwrap();
    let said = folder.path().join("log");
    let child = Command::new(env!("CARGO_BIN_EXE_vipr"))
        .args(["run", "-c"])
        .arg(&config)
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn();
    let router = Running(child.unwrap());
    let has_said = |words: &str| {
        wait_for(words, || std::fs::read_to_string(&said).unwrap().contains(words));
    };
    has_said("segments: front");
    let pid = Pid::from_raw(router.0.id().cast_signed());
    // The router has them from here.
    let before = getrlimit(Resource::Nofile);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
    let mut machine = Machine::of(UnixStream::connect(&socket).unwrap());
    has_said("cannot let a machine in: Too many open files");
    prlimit(pid, Resource::Nofile, before).unwrap();
    let question = arp_request();
    machine.send(&question);
    // First it announces the VIP.
    let mut heard = Vec::new();
    while !heard.iter().any(|frame: &Vec<u8>| frame[..6] == question[6..12]) {
        heard.push(machine.receive());
    }
    let answer = heard.pop().unwrap();
    assert_eq!(answer[6..12], DIRECTOR.0);
    assert_eq!(answer[28..32], [192, 0, 2, 10]);
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Station 1 asks for 192.0.2.10.
fn arp_request() -> Vec<u8> {
    let mut frame = [&ALL.0[..], &station(1).0, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]].concat();
    frame.extend(station(1).0);
    frame.extend([192, 0, 2, 100]);
    frame.extend([0; 6]);
    frame.extend([192, 0, 2, 10]);
    frame.resize(60, 0);
    frame
}

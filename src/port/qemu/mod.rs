//! A port that is the network of virtual machines: QEMU's `-netdev stream` at the other end of Unix
//! sockets. Nothing on the host takes part: no TAP, no bridge, no privilege.
//!
//! Machines connect to a socket that the port listens on, any number of them; or the port connects
//! to machines that listen, one at each socket. Among them and the director it is a switch: it
//! learns who is behind which connection ([`stations`]), and gives frames to the one they are for,
//! or to all. The director gets those for its MAC, those for groups, and those for nobody known, as
//! a port of a bridge does.
//!
//! Everything that happens is found by one epoll descriptor, which is the port's: new machines,
//! frames, room for frames that waited, and the time to try again where nobody listened. Frames of
//! a burst go out together, one write a machine ([`framing`]).

mod framing;
mod stations;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use framing::{Incoming, Next, Outgoing};
use stations::Stations;

use super::unix_socket::{self, Obstacle, SocketFile};
use super::{Batch, Condition, OpenError, Port, Readiness};
use crate::wire::{MacAddr, Offload};

/// Machines at a time.
pub const MACHINES_MAX: usize = 128;
/// How often it is tried to reach machines that do not listen.
const DIAL_INTERVAL_S: i64 = 1;
/// Frames that are switched before others get their turn, whether they are for the director or not.
const FRAMES_A_TURN: usize = 1024;
/// Lines about machines that come and go, one in this time at most.
const SAY_INTERVAL: Duration = Duration::from_secs(1);

const ETHERNET_MTU: u16 = 1500;
const HEADER_LEN: usize = 14;

/// What the events of the descriptor are about: a machine by its number, or one of these.
const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// Where machines are, and what the director is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConfig<'a> {
    /// The director's MAC.
    pub mac: MacAddr,
    /// The largest IP packet that the machines' cards take, in bytes.
    pub mtu: Option<u16>,
    /// Machines connect here.
    pub listen: Option<&'a str>,
    /// A machine listens at each of these.
    pub connect: Vec<&'a str>,
}

/// The switch between the director and its machines.
pub struct QemuPort {
    poll: OwnedFd,
    timer: OwnedFd,
    // Before its file, so that no file of a dead socket is left visible.
    listener: Option<UnixListener>,
    file: Option<SocketFile>,
    /// Whether machines cannot be let in for now, for want of descriptors.
    is_shut: bool,
    dialled: Vec<Dialled>,
    machines: Vec<Option<Machine>>,
    stations: Stations,
    /// Machines that may have frames here, each once.
    unread: VecDeque<usize>,
    /// Machines that something was put aside for since the last flush, each once.
    unsent: Vec<usize>,
    mac: MacAddr,
    mtu: u16,
    missed: u64,
    say_at: Option<Instant>,
}

/// A machine that listens, or is to.
struct Dialled {
    path: String,
    is_connected: bool,
    /// Why not, as it was last said.
    said: Option<ErrorKind>,
}

/// A machine that is connected.
struct Machine {
    stream: UnixStream,
    /// Which of [`QemuPort::dialled`] it is, if it is one.
    dialled: Option<usize>,
    incoming: Incoming,
    outgoing: Outgoing,
    is_unread: bool,
    is_unsent: bool,
    /// Whether the descriptor tells when there is room for frames again.
    waits_for_room: bool,
}

/// Why reading a machine's frames stopped.
enum Stop {
    /// There are no more of them.
    Drained,
    /// There may be more.
    Full,
    /// It has gone, or might as well have.
    Gone(String),
}

impl QemuPort {
    /// Listens, and connects to the machines that listen already; others are tried again every
    /// second. When the port is dropped all are disconnected, and the socket's file goes.
    ///
    /// # Errors
    /// One line of what, where, and what to do.
    pub fn open(config: &QemuConfig<'_>) -> Result<QemuPort, OpenError> {
        let first = config.listen.or_else(|| config.connect.first().copied()).unwrap_or_default();
        let failed = |error: io::Error| OpenError::Socket { path: first.to_owned(), error };
        let (listener, file) = match config.listen {
            Some(path) => {
                let (listener, file) =
                    unix_socket::listen(Path::new(path), |path| UnixListener::bind(path))
                        .map_err(|obstacle| refused(path, obstacle))?;
                (Some(listener), Some(file))
            }
            None => (None, None),
        };
        let mut port = QemuPort {
            poll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| failed(e.into()))?,
            timer: timer().map_err(failed)?,
            listener,
            file,
            is_shut: false,
            dialled: config
                .connect
                .iter()
                .map(|path| Dialled { path: (*path).to_owned(), is_connected: false, said: None })
                .collect(),
            machines: Vec::new(),
            stations: Stations::default(),
            unread: VecDeque::new(),
            unsent: Vec::new(),
            mac: config.mac,
            mtu: config.mtu.unwrap_or(ETHERNET_MTU),
            missed: 0,
            say_at: None,
        };
        port.watch(&port.timer, TIMER).map_err(failed)?;
        if let Some(listener) = &port.listener {
            port.watch(listener, LISTENER).map_err(failed)?;
        }
        port.dial();
        Ok(port)
    }

    /// Where it listens, if it does.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(SocketFile::path)
    }

    fn watch(&self, source: impl AsFd, subject: u64) -> io::Result<()> {
        Ok(epoll::add(&self.poll, source, EventData::new_u64(subject), EventFlags::IN)?)
    }

    /// Does what the descriptor tells of; whether there was anything.
    fn handle_events(&mut self) -> io::Result<bool> {
        let mut events: [epoll::Event; 32] =
            [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 32];
        let found = match epoll::wait(&self.poll, &mut events, Some(&Timespec::default())) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            result => result?,
        };
        for event in &events[..found] {
            let (flags, subject) = (event.flags, event.data.u64());
            match subject {
                LISTENER => self.accept(),
                TIMER => self.handle_timer(),
                index => {
                    let index = index as usize;
                    if flags.contains(EventFlags::OUT) {
                        self.flush_machine(index);
                    }
                    // An end is found by reading, too.
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        self.note_unread(index);
                    }
                }
            }
        }
        Ok(found > 0)
    }

    fn note_unread(&mut self, index: usize) {
        if let Some(Some(machine)) = self.machines.get_mut(index)
            && !machine.is_unread
        {
            machine.is_unread = true;
            self.unread.push_back(index);
        }
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            match listener.accept() {
                Ok((stream, _)) => self.add(stream, None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Who waits would make an event again and again.
                    self.is_shut = epoll::delete(&self.poll, listener).is_ok();
                    self.set_timer();
                    return self.say(&format!("cannot let a machine in: {error}"));
                }
            }
        }
    }

    fn handle_timer(&mut self) {
        // Without this it would go on telling that the time is over.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        if self.is_shut
            && let Some(listener) = &self.listener
        {
            self.is_shut = self.watch(listener, LISTENER).is_err();
        }
        self.dial();
    }

    /// Connects to those who are not connected, and sets the time to try again.
    fn dial(&mut self) {
        for index in 0..self.dialled.len() {
            if self.dialled[index].is_connected {
                continue;
            }
            match connect(&self.dialled[index].path) {
                Ok(stream) => self.add(stream, Some(index)),
                Err(error) => {
                    let Dialled { path, said, .. } = &mut self.dialled[index];
                    if said.replace(error.kind()) != Some(error.kind()) {
                        log::warn!(
                            "socket {path}: no machine listens there ({error}); trying again every \
                             {DIAL_INTERVAL_S} s"
                        );
                    }
                }
            }
        }
        self.set_timer();
    }

    fn set_timer(&self) {
        let waits = self.is_shut || self.dialled.iter().any(|dialled| !dialled.is_connected);
        let next = Timespec { tv_sec: if waits { DIAL_INTERVAL_S } else { 0 }, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: Timespec::default(), it_value: next };
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting);
    }

    /// A machine is connected.
    fn add(&mut self, stream: UnixStream, dialled: Option<usize>) {
        let free = self.machines.iter().position(Option::is_none);
        let index = free.unwrap_or(self.machines.len());
        if index >= MACHINES_MAX {
            return self.say(&format!("refused a machine: there are {MACHINES_MAX} already"));
        }
        if stream.set_nonblocking(true).is_err() || self.watch(&stream, index as u64).is_err() {
            return;
        }
        let machine = Machine {
            stream,
            dialled,
            incoming: Incoming::new(),
            outgoing: Outgoing::default(),
            is_unread: false,
            is_unsent: false,
            waits_for_room: false,
        };
        if free.is_some() {
            self.machines[index] = Some(machine);
        } else {
            self.machines.push(Some(machine));
        }
        if let Some(dialled) = dialled {
            self.dialled[dialled].is_connected = true;
            self.dialled[dialled].said = None;
        }
        self.say(&format!("machine {index} is connected"));
    }

    /// A machine has gone; its number may be another's from now on.
    fn remove(&mut self, index: usize, why: &str) {
        let Some(machine) = self.machines.get_mut(index).and_then(Option::take) else { return };
        self.unread.retain(|unread| *unread != index);
        self.unsent.retain(|unsent| *unsent != index);
        self.stations.forget(index);
        if let Some(dialled) = machine.dialled {
            self.dialled[dialled].is_connected = false;
            self.set_timer();
        }
        drop(machine);
        self.say(&format!("machine {index} has gone: {why}"));
    }

    fn say(&mut self, what: &str) {
        let subject = match (&self.file, self.dialled.first()) {
            (Some(file), _) => file.path().display().to_string(),
            (None, Some(dialled)) => dialled.path.clone(),
            (None, None) => String::new(),
        };
        let count = self.machines.iter().flatten().count();
        let now = Instant::now();
        let level = if self.say_at.is_none_or(|at| at <= now) {
            self.say_at = Some(now + SAY_INTERVAL);
            log::Level::Info
        } else {
            log::Level::Debug
        };
        log::log!(level, "socket {subject}: {what} ({count} connected)");
    }

    /// Switches a machine's frames until there are no more, or `batch` is full, or it has had its
    /// turn.
    fn read_machine(&mut self, index: usize, batch: &mut Batch, budget: &mut usize) {
        // Taken out, so that its frames can be given to the others.
        let Some(mut machine) = self.machines.get_mut(index).and_then(Option::take) else { return };
        machine.is_unread = false;
        let stop = loop {
            if batch.is_full() || *budget == 0 {
                break Stop::Full;
            }
            match machine.incoming.next() {
                Next::Frame { at, len } => {
                    *budget -= 1;
                    self.switch(index, machine.incoming.frame(at, len), batch);
                }
                Next::Nonsense(len) => {
                    break Stop::Gone(format!("it speaks of a frame of {len} bytes"));
                }
                Next::Incomplete => match machine.incoming.fill(&mut machine.stream) {
                    Ok(0) => break Stop::Gone("it closed the connection".to_owned()),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break Stop::Drained,
                    Err(error) => break Stop::Gone(error.to_string()),
                },
            }
        };
        self.machines[index] = Some(machine);
        match stop {
            Stop::Drained => {}
            Stop::Full => self.note_unread(index),
            Stop::Gone(why) => self.remove(index, &why),
        }
    }

    /// A frame that a machine sent goes where it is to go.
    #[inline]
    fn switch(&mut self, from: usize, frame: &[u8], batch: &mut Batch) {
        let Some((to, source)) = addresses(frame) else {
            self.missed += 1;
            return;
        };
        if !source.is_multicast() && source != self.mac {
            self.stations.learn(source, from);
        }
        if to != self.mac {
            match self.find(to) {
                Some(there) if there == from => return,
                Some(there) => {
                    let there = self.put_aside(there, frame);
                    self.missed += u64::from(!there);
                    return;
                }
                None => self.missed += self.put_aside_for_all(Some(from), frame),
            }
        }
        let taken = batch.push_with(|buffer| {
            buffer.get_mut(..frame.len()).ok_or(())?.copy_from_slice(frame);
            Ok::<_, ()>((frame.len(), Offload::default()))
        });
        self.missed += u64::from(taken.is_err());
    }

    /// The machine that a frame is for; `None` if it is for all.
    #[inline]
    fn find(&self, to: MacAddr) -> Option<usize> {
        if to.is_multicast() { None } else { self.stations.find(to) }
    }

    /// Whether the frame found room, to be sent to this machine with the next flush.
    #[inline]
    fn put_aside(&mut self, index: usize, frame: &[u8]) -> bool {
        let Some(Some(machine)) = self.machines.get_mut(index) else { return false };
        if !machine.is_unsent {
            machine.is_unsent = true;
            self.unsent.push(index);
        }
        machine.outgoing.push(frame)
    }

    /// The same for all machines but one; how many had no room.
    fn put_aside_for_all(&mut self, but: Option<usize>, frame: &[u8]) -> u64 {
        let mut lost = 0;
        for index in 0..self.machines.len() {
            if Some(index) != but && self.machines[index].is_some() {
                lost += u64::from(!self.put_aside(index, frame));
            }
        }
        lost
    }

    fn flush_all(&mut self) {
        while let Some(index) = self.unsent.pop() {
            self.flush_machine(index);
        }
    }

    fn flush_machine(&mut self, index: usize) {
        let Some(Some(machine)) = self.machines.get_mut(index) else { return };
        machine.is_unsent = false;
        let result = machine.outgoing.flush(&mut machine.stream).and_then(|()| {
            let waits = !machine.outgoing.is_empty();
            if waits != machine.waits_for_room {
                machine.waits_for_room = waits;
                let flags = if waits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
                let subject = EventData::new_u64(index as u64);
                epoll::modify(&self.poll, &machine.stream, subject, flags)?;
            }
            Ok(())
        });
        if let Err(error) = result {
            self.remove(index, &error.to_string());
        }
    }
}

impl Port for QemuPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        let mut budget = FRAMES_A_TURN;
        let readiness = loop {
            if batch.is_full() || budget == 0 {
                break Readiness::More;
            }
            if let Some(index) = self.unread.pop_front() {
                self.read_machine(index, batch, &mut budget);
            } else if !self.handle_events()? {
                break Readiness::Drained;
            }
        };
        self.flush_all();
        Ok(readiness)
    }

    fn send(&mut self, bytes: &[u8], _: Offload) -> io::Result<()> {
        let Some((to, _)) = addresses(bytes) else { return Err(ErrorKind::InvalidInput.into()) };
        let has_room = match self.find(to) {
            Some(index) => self.put_aside(index, bytes),
            None => self.put_aside_for_all(None, bytes) == 0,
        };
        if has_room { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOBUFS)) }
    }

    fn flush(&mut self) -> Result<(), super::Lost> {
        self.flush_all();
        Ok(())
    }

    fn descriptor(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    fn mtu(&self) -> io::Result<u16> {
        Ok(self.mtu)
    }

    fn condition(&self) -> io::Result<Condition> {
        let running = self.machines.iter().any(Option::is_some);
        Ok(Condition { running, missed: self.missed })
    }
}

/// Destination and source of a frame that has room for them.
#[inline]
fn addresses(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let header = frame.first_chunk::<HEADER_LEN>()?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *header;
    Some((MacAddr([a, b, c, d, e, f]), MacAddr([g, h, i, j, k, l])))
}

fn timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Ok(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Connects without waiting: whoever does not take connections as they come is tried again.
fn connect(path: &str) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn refused(path: &str, obstacle: Obstacle) -> OpenError {
    let path = path.to_owned();
    match obstacle {
        Obstacle::Taken => OpenError::SocketTaken { path },
        Obstacle::NotASocket => OpenError::NotASocket { path },
        Obstacle::Io(error) => OpenError::Socket { path, error },
    }
}

//! The whole event loop of `vipr run` as a contender, with any configuration on any ports.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vipr::config::snapshot::Segment;
use vipr::port::{Batch, Lost, Port, Readiness};
use vipr::shell::event_loop::EventLoop;
use vipr::shell::ports::{OpenError, Opener};
use vipr::shell::watch::Loaded;
use vipr::wire::Offload;

use super::contender::Contender;
use super::frames::{Establish, vip};

/// Far longer than any turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a router is to be like. Segments are `front`, of VIPs, and `back`.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How the router is called in tables.
    pub name: String,
    pub services: u32,
    /// Real servers of each service. The first has the MAC that frames are expected to go to; all
    /// are on one machine.
    pub real_servers: u32,
    pub scheduler: &'static str,
    /// Connections that are established before anything is measured.
    pub connections: u32,
    /// Connections that there is room for.
    pub connections_max: u32,
    /// Lines of the two `[segment]`s beside role and MAC: how they are attached.
    pub front: String,
    pub back: String,
}

impl Setup {
    /// One service with one real server, and so many connections.
    pub fn with_connections(connections: u32) -> Setup {
        Setup {
            name: "vipr".to_owned(),
            services: 1,
            real_servers: 1,
            scheduler: "wrr",
            connections,
            connections_max: 1 << 20,
            front: "tap = \"vipr-front\"".to_owned(),
            back: "tap = \"vipr-back\"".to_owned(),
        }
    }

    pub fn named(self, name: &str) -> Setup {
        Setup { name: name.to_owned(), ..self }
    }

    fn configuration(&self) -> String {
        let mut text = format!(
            "[router]\nconnections_max = {}\n\
             [segment.front]\nrole = \"vip\"\nmac = \"02:00:00:00:01:01\"\n{}\n\
             [segment.back]\nrole = \"backend\"\nmac = \"02:00:00:00:02:01\"\n{}\n",
            self.connections_max, self.front, self.back
        );
        for service in 0..self.services {
            let _ = write!(
                text,
                "[[service]]\nvip = \"{}\"\nprotocol = \"tcp\"\nports = 80\nscheduler = \"{}\"\n\
                 real_server = [\n",
                vip(service),
                self.scheduler
            );
            for real_server in 0..self.real_servers {
                let address = std::net::Ipv4Addr::from(0x0a63_0001 + real_server);
                let _ = writeln!(
                    text,
                    "{{ name = \"rs{real_server}\", address = \"{address}\", \
                     mac = \"52:54:00:00:00:11\" }},"
                );
            }
            text.push_str("]\n");
        }
        text
    }
}

/// A router that runs when it is its turn.
pub struct Router<O: Opener> {
    name: String,
    event_loop: EventLoop<Metered<O>>,
    meter: Rc<Meter>,
    /// The configuration file, which the event loop watches.
    _directory: TempDir,
}

impl<O: Opener> Router<O> {
    /// Starts a router; with [`Self::establish`] it gets its connections.
    pub fn start(setup: &Setup, opener: O) -> Box<Router<O>> {
        let directory = tempfile::tempdir().expect("a directory for the configuration");
        let file = directory.path().join("vipr.toml");
        fs::write(&file, setup.configuration()).expect("a file for the configuration");
        let loaded = Loaded::read(&file).unwrap_or_else(|error| panic!("{error}"));
        let meter = Rc::new(Meter::default());
        let opener = Metered { opener, meter: Rc::clone(&meter) };
        let event_loop =
            EventLoop::start(loaded, opener, 1).unwrap_or_else(|error| panic!("{error}"));
        Box::new(Router { name: setup.name.clone(), event_loop, meter, _directory: directory })
    }

    /// A router with the connections that its setup asks for.
    pub fn ready(setup: &Setup, opener: O) -> Box<Router<O>> {
        let mut router = Router::start(setup, opener);
        router.establish(setup.connections, setup.services);
        router
    }

    /// Establishes connections; what comes of these frames is not sent.
    pub fn establish(&mut self, connections: u32, services: u32) {
        let establish = Establish::new(connections, services);
        let frames = u64::from(establish.len());
        self.meter.feed.replace(Some(establish));
        self.meter.discard.set(true);
        self.forward(frames);
        self.meter.discard.set(false);
        self.meter.feed.replace(None);
    }
}

impl<O: Opener> Contender for Router<O> {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// Lets go by what happened during the turns of others.
    fn prepare(&mut self) {
        self.event_loop.step(Some(Duration::ZERO)).expect("the event loop runs");
    }

    fn forward(&mut self, frames: u64) {
        let until = self.meter.received.get() + frames;
        let start = Instant::now();
        while self.meter.received.get() < until {
            self.event_loop.step(Some(Duration::from_millis(100))).expect("the event loop runs");
            let left = until.saturating_sub(self.meter.received.get());
            assert!(start.elapsed() < TURN_TIMEOUT, "{left} of {frames} frames are missing");
        }
    }
}

/// What the ports of a router have to tell, and to be told.
#[derive(Default)]
struct Meter {
    /// Frames that came in at the front.
    received: Cell<u64>,
    /// Frames that the front has before those of its device.
    feed: RefCell<Option<Establish>>,
    /// Whether frames are not really sent.
    discard: Cell<bool>,
}

/// An opener whose ports are metered.
struct Metered<O> {
    opener: O,
    meter: Rc<Meter>,
}

struct MeteredPort<P> {
    port: P,
    is_front: bool,
    meter: Rc<Meter>,
}

impl<O: Opener> Opener for Metered<O> {
    type Port = MeteredPort<O::Port>;

    fn open(&mut self, segment: &Segment) -> Result<Self::Port, OpenError> {
        let port = self.opener.open(segment)?;
        let is_front = segment.role.has_vips();
        Ok(MeteredPort { port, is_front, meter: Rc::clone(&self.meter) })
    }
}

impl<P: Port> Port for MeteredPort<P> {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        if !self.is_front {
            return self.port.receive(batch);
        }
        let mut feed = self.meter.feed.borrow_mut();
        let readiness = match feed.as_mut() {
            None => self.port.receive(batch)?,
            Some(establish) => {
                while !batch.is_full()
                    && let Some(frame) = establish.next()
                {
                    batch.push_with(|buffer| {
                        buffer[..frame.len()].copy_from_slice(frame);
                        Ok::<_, io::Error>((frame.len(), Offload::default()))
                    })?;
                }
                Readiness::More
            }
        };
        self.meter.received.set(self.meter.received.get() + batch.len() as u64);
        Ok(readiness)
    }

    // What measures is not to weigh.
    #[inline(always)]
    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()> {
        if self.meter.discard.get() {
            return Ok(());
        }
        self.port.send(bytes, offload)
    }

    fn flush(&mut self) -> Result<(), Lost> {
        self.port.flush()
    }

    fn descriptor(&self) -> RawFd {
        self.port.descriptor()
    }

    fn further_descriptors(&self) -> Vec<RawFd> {
        self.port.further_descriptors()
    }

    fn takes_offload(&self) -> bool {
        self.port.takes_offload()
    }

    fn set_offload(&mut self, wanted: bool) -> io::Result<()> {
        self.port.set_offload(wanted)
    }

    fn mtu(&self) -> io::Result<u16> {
        self.port.mtu()
    }
}

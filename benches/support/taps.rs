//! Two TAPs that several contenders share, as a single-queue TAP has one reader.

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;

use rustix::fs::OFlags;
use vipr::config::snapshot::Segment;
use vipr::port::{Batch, Lost, Port, Readiness, TapConfig, TapPort};
use vipr::shell::ports::{OpenError, Opener};
use vipr::wire::Offload;

use super::place;

/// TAP A, where frames come in, and TAP B.
#[derive(Clone)]
pub struct Taps {
    pub a: Tap,
    pub b: Tap,
    /// The interface to send through to A, and the one that receives what leaves by B.
    pub entrance: String,
    pub exit: String,
}

/// A TAP held open by whoever has a clone.
#[derive(Clone)]
pub struct Tap {
    pub name: String,
    pub port: Rc<RefCell<TapPort>>,
    pub raw: RawFd,
}

impl Taps {
    /// Two TAPs on nothing: their host's ends are where frames come from and go to.
    pub fn direct(prefix: &str) -> Taps {
        let (a, b) =
            (Tap::open(&format!("{prefix}-a"), None), Tap::open(&format!("{prefix}-b"), None));
        let (entrance, exit) = (a.name.clone(), b.name.clone());
        Taps { a, b, entrance, exit }
    }

    /// Two TAPs on a bridge each, and a virtual cable from each bridge to whoever sends or
    /// receives.
    pub fn bridged(prefix: &str) -> Taps {
        let side = |side: &str| {
            let (bridge, outer, inner) = (
                format!("{prefix}-br{side}"),
                format!("{prefix}-o{side}"),
                format!("{prefix}-i{side}"),
            );
            let tap = Tap::open(&format!("{prefix}-{side}"), Some(&bridge));
            place::veth(&outer, &inner);
            place::ip(&format!("link set {inner} master {bridge}"));
            (tap, outer)
        };
        let ((a, entrance), (b, exit)) = (side("a"), side("b"));
        Taps { a, b, entrance, exit }
    }
}

impl Tap {
    fn open(name: &str, bridge: Option<&str>) -> Tap {
        let port = TapPort::open(&TapConfig { tap: name, bridge, uplink: None, mtu: Some(1500) })
            .unwrap_or_else(|error| panic!("{error}"));
        Tap { name: name.to_owned(), raw: port.descriptor(), port: Rc::new(RefCell::new(port)) }
    }

    pub fn set_blocking(&self, blocking: bool) {
        // SAFETY: the TAP stays open as long as `self`.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.raw) };
        let flags = rustix::fs::fcntl_getfl(descriptor).expect("the TAP is open");
        let flags = if blocking { flags - OFlags::NONBLOCK } else { flags | OFlags::NONBLOCK };
        rustix::fs::fcntl_setfl(descriptor, flags).expect("the TAP is open");
    }
}

/// Gives A to the segment of VIPs, B to the other.
impl Opener for Taps {
    type Port = Tap;

    fn open(&mut self, segment: &Segment) -> Result<Tap, OpenError> {
        let tap = if segment.role.has_vips() { &self.a } else { &self.b };
        Ok(tap.clone())
    }
}

impl Port for Tap {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        self.port.borrow_mut().receive(batch)
    }

    fn send(&mut self, bytes: &[u8], offload: Offload) -> io::Result<()> {
        self.port.borrow_mut().send(bytes, offload)
    }

    fn flush(&mut self) -> Result<(), Lost> {
        self.port.borrow_mut().flush()
    }

    fn descriptor(&self) -> RawFd {
        self.raw
    }

    fn mtu(&self) -> io::Result<u16> {
        self.port.borrow().mtu()
    }
}

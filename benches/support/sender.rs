//! A thread on a core of its own that sends frames when asked, and that can wait for one to
//! arrive: packet sockets, past the queueing discipline.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender as Channel};
use std::thread;
use std::time::{Duration, Instant};

use super::frames::{Kind, Workload, Writer};
use super::place::{self, interface_index};

/// Frames given to the kernel at a time.
const CHUNK: usize = 64;
/// Far longer than a frame takes.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough for whoever forwards to have fallen asleep again.
const PAUSE: Duration = Duration::from_micros(60);

enum Order {
    /// Send so many frames of a workload.
    Fill { entrance: String, workload: Workload, frames: u64 },
    /// Send so many, each when the one before has arrived.
    PingPong { entrance: String, exit: String, workload: Workload, frames: u64 },
}

/// The thread.
pub struct Sender {
    orders: Option<Channel<Order>>,
    done: Receiver<Vec<Duration>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sender {
    pub fn start(core: usize) -> Sender {
        let (orders, ordered) = mpsc::channel::<Order>();
        let (tell_done, done) = mpsc::channel();
        let thread = thread::spawn(move || {
            place::pin(core);
            let mut sender = Outgoing::default();
            for order in ordered {
                let result = match order {
                    Order::Fill { entrance, workload, frames } => {
                        sender.fill(&entrance, workload, frames);
                        Vec::new()
                    }
                    Order::PingPong { entrance, exit, workload, frames } => {
                        sender.ping_pong(&entrance, &exit, workload, frames)
                    }
                };
                if tell_done.send(result).is_err() {
                    return;
                }
            }
        });
        Sender { orders: Some(orders), done, thread: Some(thread) }
    }

    /// Has frames sent, and waits until they are.
    pub fn fill(&self, entrance: &str, workload: Workload, frames: u64) {
        self.order(Order::Fill { entrance: entrance.to_owned(), workload, frames });
        self.finish();
    }

    /// Has frames sent one by one; [`Self::finish`] says how long each was under way.
    pub fn ping_pong(&self, entrance: &str, exit: &str, workload: Workload, frames: u64) {
        let (entrance, exit) = (entrance.to_owned(), exit.to_owned());
        self.order(Order::PingPong { entrance, exit, workload, frames });
    }

    /// Waits until the order has been carried out.
    pub fn finish(&self) -> Vec<Duration> {
        self.done.recv().expect("the sender lives")
    }

    fn order(&self, order: Order) {
        let orders = self.orders.as_ref().expect("taken only by drop");
        orders.send(order).expect("the sender lives");
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // Without orders it ends.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sockets by interface, and how far each kind of frame has got.
#[derive(Default)]
pub struct Outgoing {
    sockets: HashMap<String, OwnedFd>,
    next_established: u32,
    next_new: u32,
}

impl Outgoing {
    fn socket(&mut self, interface: &str) -> &OwnedFd {
        self.sockets.entry(interface.to_owned()).or_insert_with(|| packet_socket(interface, 0))
    }

    fn writer(&self, kind: Kind) -> Writer {
        match kind {
            Kind::Open { .. } | Kind::OpenAndReset { .. } => Writer::new(kind, self.next_new),
            _ => Writer::new(kind, self.next_established),
        }
    }

    fn put_back(&mut self, kind: Kind, writer: &Writer) {
        match kind {
            Kind::Open { .. } | Kind::OpenAndReset { .. } => self.next_new = writer.next(),
            _ => self.next_established = writer.next(),
        }
    }

    /// Sends one frame.
    #[allow(dead_code, reason = "only where the kernel has to get connections")]
    pub fn send(&mut self, entrance: &str, frame: &[u8]) {
        rustix::io::write(self.socket(entrance), frame).expect("the sender sends");
    }

    /// Sends so many frames.
    pub fn fill(&mut self, entrance: &str, workload: Workload, frames: u64) {
        let mut writer = self.writer(workload.kind);
        send_all(self.socket(entrance), &mut writer, workload.len, frames);
        self.put_back(workload.kind, &writer);
    }

    fn ping_pong(
        &mut self,
        entrance: &str,
        exit: &str,
        workload: Workload,
        frames: u64,
    ) -> Vec<Duration> {
        let arrivals = packet_socket(exit, libc::ETH_P_ALL as u16);
        let mut writer = self.writer(workload.kind);
        let mut frame = writer.template(workload.len);
        let mut buffer = [0; 2048];
        let socket = self.socket(entrance);
        let mut times = Vec::with_capacity(frames as usize);
        for _ in 0..frames {
            writer.write(&mut frame);
            let start = Instant::now();
            rustix::io::write(socket, &frame).expect("the sender sends");
            // Nothing else may be counted as the frame's arrival.
            while receive(&arrivals, &mut buffer) != Some(frame.len())
                || buffer[26..48] != frame[26..48]
            {
                assert!(start.elapsed() < FRAME_TIMEOUT, "a frame did not arrive");
            }
            times.push(start.elapsed());
            let pause = Instant::now();
            while pause.elapsed() < PAUSE {
                std::hint::spin_loop();
            }
        }
        self.put_back(workload.kind, &writer);
        times
    }
}

/// A frame that has arrived; its length.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    // SAFETY: the buffer lives through the call, and its length is told.
    let len = unsafe {
        libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
    };
    usize::try_from(len).ok()
}

fn send_all(socket: &OwnedFd, writer: &mut Writer, len: usize, count: u64) {
    let chunk = CHUNK.min(count as usize);
    let mut frames: Vec<Vec<u8>> = vec![writer.template(len); chunk];
    let mut parts: Vec<libc::iovec> = frames
        .iter_mut()
        .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all zeros is a valid `mmsghdr`.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut left = count;
    while left > 0 {
        let now = chunk.min(left as usize);
        for frame in &mut frames[..now] {
            writer.write(frame);
        }
        // SAFETY: the messages point to `parts`, these to `frames`; all live, and nothing else
        // touches the frames during the call, which only reads them.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), now as u32, 0) };
        assert_eq!(sent, now as i32, "the sender: {}", io::Error::last_os_error());
        left -= now as u64;
    }
}

/// A socket on an interface: it receives frames of this EtherType (0: none), and what it sends
/// goes straight into the interface.
fn packet_socket(interface: &str, ether_type: u16) -> OwnedFd {
    // SAFETY: no pointers; the result is checked before it is owned.
    let descriptor =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(descriptor >= 0, "AF_PACKET: {}", io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: all zeros is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = interface_index(interface).cast_signed();
    // SAFETY: the address lives through the call, and its length is told.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    assert_eq!(bound, 0, "bind to {interface}: {}", io::Error::last_os_error());
    let on: libc::c_int = 1;
    // SAFETY: the value lives through the call, and its length is told.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    assert_eq!(set, 0, "PACKET_QDISC_BYPASS: {}", io::Error::last_os_error());
    socket
}

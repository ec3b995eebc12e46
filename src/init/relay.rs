//! The router's control socket, for the host: the port `vipr.control`.
//!
//! `vipr status --socket PATH` on the host works where PATH is the socket that the hypervisor
//! listens on for this port.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::virtio::{Arrived, HostPort};

const BUFFER_LEN: usize = 64 * 1024;

/// The port, and the connection to the router while somebody uses it.
pub struct Relay {
    port: HostPort,
    router: Option<UnixStream>,
    /// Whether the router has a question that it has not answered yet.
    is_asked: bool,
    token: Token,
    buffer: Vec<u8>,
}

impl Relay {
    /// `token` is for the connection to the router; the port's own is up to the caller.
    pub fn new(port: HostPort, token: Token) -> Relay {
        Relay { port, router: None, is_asked: false, token, buffer: vec![0; BUFFER_LEN] }
    }

    pub fn port(&self) -> &HostPort {
        &self.port
    }

    /// The port has something: it goes to the router's `socket`.
    pub fn handle_port(&mut self, registry: &Registry, socket: &Path) {
        loop {
            match self.port.receive(&mut self.buffer) {
                Arrived::Nothing => return,
                // What a host sends can be here before the kernel knows that there is one: its
                // answer is still wanted. If there is nobody, sending the answer says so.
                Arrived::Nobody if self.is_asked => return,
                Arrived::Nobody => return self.router = None,
                Arrived::Bytes(len) => {
                    if self.router.is_none() {
                        self.connect(registry, socket);
                    }
                    let sent = match &mut self.router {
                        // Requests are short; the socket has room for them.
                        Some(router) => {
                            self.is_asked = true;
                            router.write_all(&self.buffer[..len]).is_ok()
                        }
                        None => false,
                    };
                    if !sent {
                        (self.router, self.is_asked) = (None, false);
                        let _ = self.port.send(b"{\"error\":\"the router does not run\"}\n");
                    }
                }
            }
        }
    }

    /// The router has something: it goes to the host.
    pub fn handle_router(&mut self) {
        while let Some(router) = &mut self.router {
            match router.read(&mut self.buffer) {
                Ok(0) => (self.router, self.is_asked) = (None, false),
                Ok(len) => {
                    // An answer is a line.
                    self.is_asked &= self.buffer[len - 1] != b'\n';
                    if self.port.send(&self.buffer[..len]).is_err() {
                        (self.router, self.is_asked) = (None, false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => (self.router, self.is_asked) = (None, false),
            }
        }
    }

    fn connect(&mut self, registry: &Registry, socket: &Path) {
        let connected = UnixStream::connect(socket).and_then(|stream| {
            stream.set_nonblocking(true)?;
            let fd = stream.as_raw_fd();
            registry.register(&mut SourceFd(&fd), self.token, Interest::READABLE)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => self.router = Some(stream),
            Err(error) => log::warn!("control socket {}: {error}", socket.display()),
        }
    }
}

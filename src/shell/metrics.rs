//! Prometheus text at `/metrics`, over just enough of HTTP/1.1 (RFC 9112) to be scraped.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Interest, Registry};

use super::prometheus;
use super::protocol::RouterStatus;
use super::server::{Answer, Manners, Parsed, Refusal, Server};
use super::tokens;
use crate::director::Instant;

/// Clients at a time.
pub const CLIENTS_MAX: usize = 8;
/// Bytes of a request's head.
pub const REQUEST_LEN_MAX: usize = 8 << 10;
/// A client that does nothing for this long is let go.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("metrics {address}: {source}{}", remedy(source))]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; set [router] metrics to a port that is free",
        io::ErrorKind::AddrNotAvailable => "; set [router] metrics to an address of this host",
        _ => "",
    }
}

/// A listening metrics server.
pub struct Metrics {
    server: Server<TcpListener, Request>,
    /// As configured.
    address: SocketAddr,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Metrics,
    /// It gets this status line and these header lines instead.
    Refused(&'static str),
}

const OK: &str = "200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
const BAD_REQUEST: &str = "400 Bad Request\r\n";
const NOT_FOUND: &str = "404 Not Found\r\n";
const METHOD_NOT_ALLOWED: &str = "405 Method Not Allowed\r\nAllow: GET\r\n";
const HEAD_TOO_LARGE: &str = "431 Request Header Fields Too Large\r\n";
const UNAVAILABLE: &str = "503 Service Unavailable\r\n";

impl Metrics {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When the system does not let it, as for a port that is taken.
    pub fn bind(address: SocketAddr) -> Result<Metrics, BindError> {
        let listener =
            TcpListener::bind(address).map_err(|source| BindError { address, source })?;
        let manners = Manners {
            clients_max: CLIENTS_MAX,
            request_max: REQUEST_LEN_MAX,
            idle_max: IDLE_MAX,
            token: tokens::metrics_client,
            parse: take_request,
            refusal,
        };
        Ok(Metrics { server: Server::new(listener, manners), address })
    }

    /// The address that was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(self.server.listener_mut(), tokens::METRICS, Interest::READABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        self.server.close(registry);
        let _ = registry.deregister(self.server.listener_mut());
    }

    pub(super) fn wake_listener(&mut self) {
        self.server.wake_listener();
    }

    pub(super) fn wake_client(&mut self, key: usize) {
        self.server.wake_client(key);
    }

    pub(super) fn has_work(&self) -> bool {
        self.server.has_work()
    }

    /// Answers one request at most for each client. `status` is called only where it is needed.
    pub(super) fn work(
        &mut self,
        registry: &Registry,
        now: Instant,
        mut status: impl FnMut() -> Option<RouterStatus>,
    ) {
        self.server.work(registry, now, |_, request| {
            Answer::Last(match request {
                Request::Metrics => match status() {
                    Some(status) => response(OK, &prometheus::render(&status)),
                    None => response(UNAVAILABLE, ""),
                },
                Request::Refused(status) => response(status, ""),
            })
        });
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        self.server.handle_timeout(registry, now);
    }
}

fn response(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn refusal(reason: Refusal) -> Vec<u8> {
    match reason {
        Refusal::TooManyClients => response(UNAVAILABLE, ""),
        Refusal::RequestTooLong => response(HEAD_TOO_LARGE, ""),
    }
}

/// Waits for the end of the head, so that nothing unread makes the closing socket a reset, and
/// looks at its first line only.
fn take_request(input: &mut Vec<u8>, _ended: bool) -> Parsed<Request> {
    if !is_complete(input) {
        return Parsed::Incomplete;
    }
    let line = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let request = request(line.trim_ascii_end());
    input.clear();
    Parsed::Request(request)
}

/// Whether an empty line has come. A bare line feed ends a line too (RFC 9112, section 2.2).
fn is_complete(input: &[u8]) -> bool {
    let mut lines = input.split_inclusive(|byte| *byte == b'\n').skip(1);
    lines.any(|line| line == b"\n" || line == b"\r\n")
}

/// `GET /metrics HTTP/1.1` (RFC 9112, section 3).
fn request(line: &[u8]) -> Request {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let &[method, target, version] = parts.as_slice() else {
        return Request::Refused(BAD_REQUEST);
    };
    if !version.starts_with(b"HTTP/1.") {
        return Request::Refused(BAD_REQUEST);
    }
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => Request::Metrics,
        (b"GET", _) => Request::Refused(NOT_FOUND),
        _ => Request::Refused(METHOD_NOT_ALLOWED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_of_metrics_is_answered_with_them() {
        let rows = [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Request::Metrics),
            ("GET /metrics HTTP/1.0\n\n", Request::Metrics),
            ("GET /metrics?name=x HTTP/1.1\r\n\r\n", Request::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Request::Refused(NOT_FOUND)),
            ("GET /metricsx HTTP/1.1\r\n\r\n", Request::Refused(NOT_FOUND)),
            ("POST /metrics HTTP/1.1\r\n\r\n", Request::Refused(METHOD_NOT_ALLOWED)),
            ("GET /metrics\r\n\r\n", Request::Refused(BAD_REQUEST)),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Request::Refused(BAD_REQUEST)),
            ("GET /metrics HTTP/2\r\n\r\n", Request::Refused(BAD_REQUEST)),
            ("\r\n\r\n", Request::Refused(BAD_REQUEST)),
        ];
        for (text, expected) in rows {
            let mut input = text.as_bytes().to_vec();
            assert_eq!(take_request(&mut input, false), Parsed::Request(expected), "{text:?}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn nothing_is_answered_before_the_head_is_complete() {
        let whole = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        for len in 0..whole.len() {
            let mut input = whole[..len].to_vec();
            assert_eq!(take_request(&mut input, true), Parsed::Incomplete, "{len}");
        }
    }
}

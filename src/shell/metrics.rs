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
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Instant as Wall;

    use mio::{Events, Poll};

    use super::super::tokens::Subject;
    use super::*;

    struct Fixture {
        poll: Poll,
        metrics: Metrics,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Fixture {
            let mut metrics = Metrics::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let poll = Poll::new().unwrap();
            metrics.register(poll.registry()).unwrap();
            Fixture { poll, metrics, now: Instant::ZERO }
        }

        fn connect(&mut self) -> TcpStream {
            let address = self.metrics.server.listener_mut().local_addr().unwrap();
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        }

        fn turn(&mut self) {
            let mut events = Events::with_capacity(64);
            let patience = (!self.metrics.has_work()).then_some(Duration::from_millis(5));
            self.poll.poll(&mut events, patience.or(Some(Duration::ZERO))).unwrap();
            for event in &events {
                match Subject::from(event.token()) {
                    Subject::Metrics => self.metrics.wake_listener(),
                    Subject::MetricsClient(key) => self.metrics.wake_client(key),
                    other => panic!("{other:?}"),
                }
            }
            let status = || serde_json::from_str(include_str!("../../tests/data/status.json")).ok();
            self.metrics.work(self.poll.registry(), self.now, status);
        }

        /// Serves until the server closes the connection; everything it sent.
        fn answer(&mut self, stream: &mut TcpStream) -> String {
            let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
            let end = Wall::now() + Duration::from_secs(10);
            while Wall::now() < end {
                match stream.read(&mut buffer) {
                    Ok(0) => return String::from_utf8(answer).unwrap(),
                    Ok(len) => answer.extend_from_slice(&buffer[..len]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.turn(),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                        return String::from_utf8(answer).unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("no end");
        }
    }

    #[test]
    fn a_scrape_gets_a_whole_exposition() {
        let mut fixture = Fixture::new();
        let mut stream = fixture.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
        fixture.turn();
        stream.write_all(b"Host: router\r\n\r\n").unwrap();
        let answer = fixture.answer(&mut stream);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        for sample in [
            "vipr_frames_dropped_total{reason=\"loop\"} 5\n",
            "vipr_real_server_connections_active{service=\"web\",real_server=\"rs1\",\
             address=\"10.0.0.11\",segment=\"back\"} 12\n",
            "vipr_real_server_persistence_templates{service=\"web\",real_server=\"rs1\",\
             address=\"10.0.0.11\",segment=\"back\"} 7\n",
            "vipr_service_quorum{service=\"web\",vip=\"192.0.2.10\",protocol=\"tcp\",ports=\"80\"} 2\n",
            "vipr_service_live_weight{service=\"web\",vip=\"192.0.2.10\",protocol=\"tcp\",\
             ports=\"80\"} 3\n",
            "vipr_service_diverted{service=\"web\",vip=\"192.0.2.10\",protocol=\"tcp\",\
             ports=\"80\"} 0\n",
            "vipr_service_diverted{service=\"[2001:db8::10]:53,853/udp\",vip=\"2001:db8::10\",\
             protocol=\"udp\",ports=\"53,853\"} 1\n",
            "vipr_sorry_server_up{service=\"[2001:db8::10]:53,853/udp\",real_server=\"sorry\",\
             address=\"2001:db8:1::99\",segment=\"back\"} 1\n",
            "vipr_sorry_server_connections_total{service=\"[2001:db8::10]:53,853/udp\",\
             real_server=\"sorry\",address=\"2001:db8:1::99\",segment=\"back\"} 5\n",
            "vipr_segment_up{segment=\"back\"} 0\n",
            "vipr_check_healthy{service=\"web\",real_server=\"rs2\",segment=\"back\"} 0\n",
            "vipr_check_duration_seconds_bucket{service=\"web\",real_server=\"rs1\",\
             segment=\"back\",le=\"0.0025\"} 720\n",
            "vipr_check_duration_seconds_count{service=\"web\",real_server=\"rs1\",\
             segment=\"back\"} 720\n",
            "vipr_configuration_stale 0\n",
            "vipr_reload_pause_max_seconds 0\n",
            "vipr_configuration_loaded_timestamp_seconds 1795358285\n",
            "vipr_weights_overridden 0\n",
        ] {
            assert!(body.contains(sample), "{sample} is not in\n{body}");
        }
        // Every sample belongs to a family that was announced, and none comes twice.
        let mut seen = std::collections::HashSet::new();
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                name.strip_suffix(end).filter(|name| name.ends_with("_duration_seconds"))
            });
            if let Some(name) = histogram {
                assert!(body.contains(&format!("# TYPE {name} histogram\n")), "{name}");
                assert!(value.parse::<f64>().is_ok() && seen.insert(series), "{line}");
                continue;
            }
            assert!(body.contains(&format!("# TYPE {name} ")), "{name}");
            // And is named as is usual.
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            assert!(body.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
            assert!(value.parse::<f64>().is_ok() && seen.insert(series), "{line}");
        }
    }

    #[test]
    fn who_asks_too_much_is_refused() {
        let mut fixture = Fixture::new();
        let mut endless = fixture.connect();
        endless.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
        endless.write_all(&[b'x'; REQUEST_LEN_MAX]).unwrap();
        let answer = fixture.answer(&mut endless);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

        let idle: Vec<TcpStream> = (0..CLIENTS_MAX).map(|_| fixture.connect()).collect();
        let mut refused = fixture.connect();
        let answer = fixture.answer(&mut refused);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");

        // The idle ones go, and there is room again.
        fixture.now += IDLE_MAX;
        fixture.metrics.handle_timeout(fixture.poll.registry(), fixture.now);
        let mut stream = fixture.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert!(fixture.answer(&mut stream).starts_with("HTTP/1.1 200 "));
        drop(idle);
    }

    #[test]
    fn a_port_that_is_taken_is_one_line_with_a_remedy() {
        let mut fixture = Fixture::new();
        let taken = fixture.metrics.server.listener_mut().local_addr().unwrap();
        let error = Metrics::bind(taken).err().unwrap().to_string();
        assert!(
            error.contains(&taken.to_string()) && error.contains("[router] metrics"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }

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

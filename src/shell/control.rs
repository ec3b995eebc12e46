//! The control socket: `vipr status` and the others ask here. Only its owner may.

use std::io::{self, ErrorKind};
use std::os::unix::net as blocking;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::UnixListener;
use mio::{Interest, Registry};
use rustix::fs::Mode;

use super::protocol::{Reply, Request};
pub(super) use super::server::{Answer, ClientId};
use super::server::{Manners, Parsed, Refusal, Server};
use super::tokens;
use crate::director::Instant;
use crate::port::unix_socket::{self, Obstacle, SocketFile};

/// Clients at a time.
pub const CLIENTS_MAX: usize = 16;
/// Bytes of a request.
pub const REQUEST_LEN_MAX: usize = 64 << 10;
/// A client that does nothing for this long is let go.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

/// Why there is no control socket. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "control socket {}: a router is already running there; stop it, or set [router] \
         control_socket to another path", .0.display()
    )]
    AlreadyRunning(PathBuf),
    #[error(
        "control socket {}: there is something else of that name; remove it, or set [router] \
         control_socket to another path", .0.display()
    )]
    NotASocket(PathBuf),
    #[error("control socket {}: {source}; {}", path.display(), remedy(source))]
    Io { path: PathBuf, source: io::Error },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "make its directory, or set [router] control_socket to another path",
        _ => "run as root, or set [router] control_socket to a path that can be written",
    }
}

/// A listening control socket; its file goes when it is dropped.
pub struct Control {
    server: Server<UnixListener, Result<Request, String>>,
    // After the listener, so that no file of a dead socket is left visible.
    file: SocketFile,
}

impl Control {
    /// Listens at `path`, in place of a router that has died.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Control, BindError> {
        let (listener, file) = bind(path)?;
        let manners = Manners {
            clients_max: CLIENTS_MAX,
            request_max: REQUEST_LEN_MAX,
            idle_max: IDLE_MAX,
            token: tokens::control_client,
            parse: take_line,
            refusal,
        };
        Ok(Control { server: Server::new(listener, manners), file })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(self.server.listener_mut(), tokens::CONTROL, Interest::READABLE)
    }

    /// Listens at `path` from now on, and no longer where it did. Clients stay.
    ///
    /// # Errors
    /// See [`BindError`]. Then it listens where it did.
    pub(super) fn relocate(
        &mut self,
        registry: &Registry,
        now: Instant,
        path: &Path,
    ) -> Result<(), BindError> {
        let (mut listener, file) = bind(path)?;
        registry
            .register(&mut listener, tokens::CONTROL, Interest::READABLE)
            .map_err(|source| BindError::Io { path: path.to_owned(), source })?;
        let mut before = self.server.replace_listener(registry, now, listener);
        let _ = registry.deregister(&mut before);
        self.file = file;
        Ok(())
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

    /// One request at most for each client. `answer` returns `None` for what it will bring later,
    /// through [`Self::answer`].
    pub(super) fn work(
        &mut self,
        registry: &Registry,
        now: Instant,
        mut answer: impl FnMut(ClientId, Request) -> Option<Reply>,
    ) {
        self.server.work(registry, now, |client, request| {
            let reply = match request {
                Ok(request) => answer(client, request),
                Err(error) => Some(Reply::Error(error)),
            };
            reply.map_or(Answer::Later, |reply| Answer::Next(line(&reply)))
        });
    }

    pub(super) fn answer(&mut self, client: ClientId, now: Instant, reply: &Reply) {
        self.server.answer(client, now, line(reply));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    pub(super) fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        self.server.handle_timeout(registry, now);
    }
}

fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let bind = |path: &Path| {
        // The mode must be right from the first moment on.
        let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let listener = blocking::UnixListener::bind(path);
        rustix::process::umask(umask);
        listener
    };
    let (listener, file) = unix_socket::listen(path, bind).map_err(|obstacle| {
        let path = path.to_owned();
        match obstacle {
            Obstacle::Taken => BindError::AlreadyRunning(path),
            Obstacle::NotASocket => BindError::NotASocket(path),
            Obstacle::Io(source) => BindError::Io { path, source },
        }
    })?;
    Ok((UnixListener::from_std(listener), file))
}

/// Takes the first line out of `input`. What comes last may lack its line feed.
fn take_line(input: &mut Vec<u8>, ended: bool) -> Parsed<Result<Request, String>> {
    loop {
        let (len, taken) = match input.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at, at + 1),
            None if ended => (input.len(), input.len()),
            None => return Parsed::Incomplete,
        };
        if taken == 0 {
            return Parsed::Incomplete;
        }
        let is_blank = input[..len].trim_ascii().is_empty();
        let request = (!is_blank).then(|| Request::parse(&input[..len]));
        input.drain(..taken);
        if let Some(request) = request {
            return Parsed::Request(request);
        }
    }
}

fn refusal(reason: Refusal) -> Vec<u8> {
    line(&Reply::Error(match reason {
        Refusal::TooManyClients => format!("more than {CLIENTS_MAX} clients at a time"),
        Refusal::RequestTooLong => format!("a request of more than {REQUEST_LEN_MAX} bytes"),
    }))
}

fn line(reply: &Reply) -> Vec<u8> {
    // Replies have string keys only, so this does not fail; if it did, the client would be told.
    let mut bytes = serde_json::to_vec(reply)
        .unwrap_or_else(|_| br#"{"error":"the answer does not go into JSON"}"#.to_vec());
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use mio::{Events, Poll};
    use tempfile::TempDir;

    use super::super::tokens::Subject;
    use super::*;
    use crate::director::Command;
    use crate::shell::protocol::ShellCommand;

    /// A control socket whose answers are a status of any length, and reloads that never end.
    struct Fixture {
        poll: Poll,
        control: Control,
        now: Instant,
        /// Bytes of an answer.
        len: usize,
        waiting: Vec<ClientId>,
        directory: TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = tempfile::tempdir().unwrap();
            let mut control = Control::bind(&directory.path().join("vipr.sock")).unwrap();
            let poll = Poll::new().unwrap();
            control.register(poll.registry()).unwrap();
            let now = Instant::ZERO;
            Fixture { poll, control, now, len: 10, waiting: Vec::new(), directory }
        }

        fn connect(&self) -> Client {
            let stream = UnixStream::connect(self.directory.path().join("vipr.sock")).unwrap();
            stream.set_nonblocking(true).unwrap();
            Client(BufReader::new(stream))
        }

        /// Serves until there is nothing to do.
        fn serve(&mut self) {
            let mut events = Events::with_capacity(64);
            loop {
                self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
                for event in &events {
                    match Subject::from(event.token()) {
                        Subject::Control => self.control.wake_listener(),
                        Subject::ControlClient(key) => self.control.wake_client(key),
                        other => panic!("{other:?}"),
                    }
                }
                if !self.control.has_work() {
                    return;
                }
                let (len, waiting) = (self.len, &mut self.waiting);
                self.control.work(self.poll.registry(), self.now, |client, request| {
                    if request == Request::Shell(ShellCommand::Reload) {
                        waiting.push(client);
                        return None;
                    }
                    assert_eq!(request, Request::Director(Command::Status));
                    Some(Reply::Error("x".repeat(len)))
                });
            }
        }
    }

    /// One that never blocks.
    struct Client(BufReader<UnixStream>);

    impl Client {
        fn send(&mut self, text: &[u8]) {
            self.0.get_mut().write_all(text).unwrap();
        }

        /// The next answer; `None` at the end.
        fn answer(&mut self) -> Option<String> {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) => None,
                Ok(_) => match serde_json::from_str(&line).unwrap() {
                    Reply::Error(text) => Some(text),
                    other => panic!("{other:?}"),
                },
                Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
                Err(error) => panic!("{error}"),
            }
        }

        fn has_answer(&mut self) -> bool {
            match self.0.fill_buf() {
                Ok(_) => true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    const STATUS: &[u8] = b"{\"command\":\"status\"}\n";

    #[test]
    fn a_socket_is_private_and_goes_with_its_router() {
        let fixture = Fixture::new();
        let path = fixture.directory.path().join("vipr.sock");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Control::bind(&path), Err(BindError::AlreadyRunning(_))));
        drop(fixture.control);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_routers_socket_is_replaced_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vipr.sock");
        drop(blocking::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let control = Control::bind(&path).unwrap();
        // Someone put another in its place: that one stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(control);
        assert!(matches!(Control::bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let nowhere = directory.path().join("none/vipr.sock");
        let error = Control::bind(&nowhere).err().unwrap().to_string();
        assert!(error.contains("none/vipr.sock") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn clients_stay_when_the_socket_moves_also_those_who_just_came() {
        let mut fixture = Fixture::new();
        let mut known = fixture.connect();
        fixture.serve();
        let mut waiting = fixture.connect();
        waiting.send(STATUS);
        let moved = fixture.directory.path().join("moved.sock");
        fixture.control.relocate(fixture.poll.registry(), fixture.now, &moved).unwrap();
        assert_eq!(fixture.control.path(), moved);
        assert!(!fixture.directory.path().join("vipr.sock").exists());
        known.send(STATUS);
        let new = UnixStream::connect(&moved).unwrap();
        new.set_nonblocking(true).unwrap();
        let mut new = Client(BufReader::new(new));
        new.send(STATUS);
        fixture.serve();
        for client in [&mut known, &mut waiting, &mut new] {
            assert_eq!(client.answer().as_deref(), Some("xxxxxxxxxx"));
        }
        // Where it cannot be, it stays.
        let nowhere = fixture.directory.path().join("none/vipr.sock");
        assert!(fixture.control.relocate(fixture.poll.registry(), fixture.now, &nowhere).is_err());
        assert!(moved.exists());
        known.send(STATUS);
        fixture.serve();
        assert_eq!(known.answer().as_deref(), Some("xxxxxxxxxx"));
    }

    #[test]
    fn every_line_gets_its_answer_in_order() {
        let mut fixture = Fixture::new();
        let mut client = fixture.connect();
        // In pieces, with blank lines, and the last without its line feed.
        client.send(b"{\"command\":");
        fixture.serve();
        assert!(!client.has_answer());
        client.send(b"\"status\"}\n\n  \r\nnonsense\n{\"command\":\"status\"}");
        client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        fixture.serve();
        assert_eq!(client.answer().as_deref(), Some("xxxxxxxxxx"));
        assert!(client.answer().unwrap().starts_with("not a JSON value"));
        assert_eq!(client.answer().as_deref(), Some("xxxxxxxxxx"));
        assert_eq!(client.answer(), None);
    }

    #[test]
    fn a_request_without_end_is_cut_off() {
        let mut fixture = Fixture::new();
        let mut client = fixture.connect();
        let mut sent = 0;
        while sent <= 2 * REQUEST_LEN_MAX {
            match client.0.get_mut().write(&[b' '; 4096]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => fixture.serve(),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => panic!("{error}"),
            }
        }
        fixture.serve();
        assert!(client.answer().unwrap().contains("65536 bytes"));
        assert_eq!(client.answer(), None);
        // The longest request there can be passes.
        let mut client = fixture.connect();
        let mut line = vec![b' '; REQUEST_LEN_MAX - STATUS.len()];
        line.extend_from_slice(STATUS);
        for part in line.chunks(4096) {
            client.send(part);
            fixture.serve();
        }
        assert_eq!(client.answer().as_deref(), Some("xxxxxxxxxx"));
    }

    #[test]
    fn a_client_that_does_not_read_holds_up_nobody_and_loses_nothing() {
        let mut fixture = Fixture::new();
        fixture.len = 4 << 20;
        let mut slow = fixture.connect();
        for _ in 0..3 {
            slow.send(STATUS);
        }
        fixture.serve();
        let mut quick = fixture.connect();
        fixture.len = 10;
        quick.send(STATUS);
        fixture.serve();
        assert!(quick.answer().is_some());

        // It begins to read: the first answer is the long one, the others were not asked before.
        let (mut received, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while received.iter().filter(|byte| **byte == b'\n').count() < 3 {
            match slow.0.read(&mut buffer) {
                Ok(len) => received.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => fixture.serve(),
                Err(error) => panic!("{error}"),
            }
        }
        let lens: Vec<usize> = received.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
        let frame = r#"{"error":""}"#.len();
        assert_eq!(lens, [frame + (4 << 20), frame + 10, frame + 10, 0]);
    }

    #[test]
    fn one_client_too_many_is_told_so_and_room_is_used_again() {
        let mut fixture = Fixture::new();
        let mut clients: Vec<Client> = (0..CLIENTS_MAX).map(|_| fixture.connect()).collect();
        fixture.serve();
        let mut refused = fixture.connect();
        fixture.serve();
        assert!(refused.answer().unwrap().contains("16 clients"));
        assert_eq!(refused.answer(), None);
        for client in &mut clients {
            client.send(STATUS);
        }
        fixture.serve();
        assert!(clients.iter_mut().all(|client| client.answer().is_some()));
        clients.pop();
        fixture.serve();
        let mut next = fixture.connect();
        next.send(STATUS);
        fixture.serve();
        assert!(next.answer().is_some());
    }

    #[test]
    fn idle_clients_go_and_waiting_ones_stay() {
        let mut fixture = Fixture::new();
        let (mut idle, mut waiting) = (fixture.connect(), fixture.connect());
        waiting.send(b"{\"command\":\"reload\"}\n");
        fixture.serve();
        assert_eq!(fixture.control.poll_timeout(), Some(Instant::ZERO + IDLE_MAX));
        fixture.now += IDLE_MAX * 100;
        fixture.control.handle_timeout(fixture.poll.registry(), fixture.now);
        assert_eq!(idle.answer(), None);
        assert_eq!(fixture.control.poll_timeout(), None);

        let client = fixture.waiting[0];
        fixture.control.answer(client, fixture.now, &Reply::Error("later".to_owned()));
        fixture.serve();
        assert_eq!(waiting.answer().as_deref(), Some("later"));
    }

    #[test]
    fn an_answer_to_one_who_left_does_not_reach_the_next() {
        let mut fixture = Fixture::new();
        let mut gone = fixture.connect();
        gone.send(b"{\"command\":\"reload\"}\n");
        fixture.serve();
        drop(gone);
        fixture.serve();
        let mut next = fixture.connect();
        fixture.serve();
        let client = fixture.waiting[0];
        fixture.control.answer(client, fixture.now, &Reply::Error("later".to_owned()));
        fixture.serve();
        assert!(!next.has_answer());
    }

    #[test]
    fn many_clients_at_once_are_all_served() {
        let mut fixture = Fixture::new();
        let path = fixture.directory.path().join("vipr.sock");
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let path = path.clone();
                thread::spawn(move || {
                    let mut stream = UnixStream::connect(path).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    for _ in 0..50 {
                        stream.write_all(STATUS).unwrap();
                    }
                    let lines = BufReader::new(stream).lines().take(50);
                    lines.filter(|line| line.as_ref().unwrap().contains("xxx")).count()
                })
            })
            .collect();
        while !clients.iter().all(thread::JoinHandle::is_finished) {
            fixture.serve();
            thread::yield_now();
        }
        for client in clients {
            assert_eq!(client.join().unwrap(), 50);
        }
    }
}

//! The control socket: `vipr status` and the others ask here. Only its owner may.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net as blocking;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::UnixListener;
use mio::{Interest, Registry};
use rustix::fs::{FlockOperation, Mode};

pub(super) use super::server::{Answer, ClientId};
use super::protocol::{Reply, Request};
use super::server::{Manners, Parsed, Refusal, Server};
use super::tokens;
use crate::director::Instant;

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
    #[error(
        "control socket {}: {source}; run as root, or set [router] control_socket to a path that \
         can be written", path.display()
    )]
    Io { path: PathBuf, source: io::Error },
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
        &self.file.path
    }

    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.register(self.server.listener_mut(), tokens::CONTROL, Interest::READABLE)
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

/// The file of a socket that this process listens on.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another router may have put its own there since.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    // Two routers that start at once must not both find the other's socket dead.
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let lock = fs::File::open(directory).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        match error {
            rustix::io::Errno::WOULDBLOCK => BindError::AlreadyRunning(path.to_owned()),
            error => failed(error.into()),
        }
    })?;
    remove_stale(path)?;
    // The mode must be right from the first moment on.
    let umask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    rustix::process::umask(umask);
    let listener = listener.map_err(failed)?;
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let identity = (metadata.dev(), metadata.ino());
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// Removes the socket of a router that has died.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match blocking::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(failed(error)),
        // Someone listens, or would if they were not so busy.
        _ => Err(BindError::AlreadyRunning(path.to_owned())),
    }
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

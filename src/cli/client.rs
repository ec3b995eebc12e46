//! The client's side of the control socket.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::shell::protocol::{Reply, Request};

/// How long a router may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which router is asked.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The router's control socket.
    #[arg(long, value_name = "PATH", env = "VIPR_SOCKET", default_value = "/run/vipr.sock")]
    socket: PathBuf,
}

/// A conversation with a router.
pub(super) struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the router.
    pub fn connect(target: &Target) -> Result<Client, Failure> {
        let socket = target.socket.clone();
        let connected = UnixStream::connect(&socket).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Client { socket, stream: BufReader::new(stream) }),
            Err(error) => Err(unreachable_router(&socket, &error)),
        }
    }

    /// Asks one question and waits for its answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        let line = self.exchange(request).map_err(|error| {
            let socket = self.socket.display();
            Failure::Running(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    format!("the router at {socket} has not answered for {} s", PATIENCE.as_secs())
                }
                _ => format!("the router at {socket} has gone away: {error}"),
            })
        })?;
        match serde_json::from_str(&line) {
            Ok(Reply::Error(error)) => {
                Err(Failure::Running(format!("the router at {}: {error}", self.socket.display())))
            }
            Ok(reply) => Ok(reply),
            Err(error) => Err(Failure::Running(format!(
                "the router at {} answers what this vipr ({}) does not understand: {error}",
                self.socket.display(),
                env!("CARGO_PKG_VERSION")
            ))),
        }
    }

    /// What to say of an answer to another question.
    pub fn unexpected(&self) -> Failure {
        let socket = self.socket.display();
        Failure::Running(format!("the router at {socket} answers another question"))
    }

    fn exchange(&mut self, request: &Request) -> io::Result<String> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }
}

fn unreachable_router(socket: &Path, error: &io::Error) -> Failure {
    let socket = socket.display();
    Failure::Running(match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
            "no router answers at {socket}: is `vipr run` running? (--socket names another)"
        ),
        ErrorKind::PermissionDenied => {
            format!("not allowed to use {socket}: run this as the user the router runs as (root)")
        }
        _ => format!("cannot reach a router at {socket}: {error} (--socket names another)"),
    })
}

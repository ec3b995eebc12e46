//! Telling a machine what to do, and hearing what comes of it.
//!
//! The machine's side is `guest-init.sh`: a numbered script goes there in base64 on one line; what
//! it prints comes back line by line with its number before it, and its status at the end.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::build::{Error, Result};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

type Listeners = Arc<Mutex<HashMap<u32, Sender<Said>>>>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Line(String),
    Ended(i32),
}

/// The way to a machine that may not be up yet.
pub struct Agent {
    machine: String,
    stream: Arc<Mutex<Option<UnixStream>>>,
    listeners: Listeners,
    next: u32,
}

/// A script that runs there.
pub struct Job {
    machine: String,
    said: Receiver<Said>,
    /// What it printed, as far as it was waited for.
    pub lines: Vec<String>,
}

impl Agent {
    /// Listens where the machine's QEMU will connect to.
    pub fn listen(machine: &str, socket: &Path) -> Result<Agent> {
        let listener = UnixListener::bind(socket)
            .map_err(|error| Error(format!("{}: {error}", socket.display())))?;
        let stream = Arc::new(Mutex::new(None));
        let listeners = Listeners::default();
        let (accepted, hearing) = (Arc::clone(&stream), Arc::clone(&listeners));
        // Ends with QEMU's end of the connection, or with this process.
        thread::spawn(move || {
            let Ok((connection, _)) = listener.accept() else { return };
            let Ok(reader) = connection.try_clone() else { return };
            *accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
            hear(BufReader::new(reader), &hearing);
        });
        Ok(Agent { machine: machine.to_owned(), stream, listeners, next: 0 })
    }

    /// Whether the machine's QEMU has connected.
    pub fn is_connected(&self) -> bool {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Starts a script.
    pub fn start(&mut self, script: &str) -> Result<Job> {
        self.next += 1;
        let (sender, said) = mpsc::channel();
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).insert(self.next, sender);
        let line = format!("{} {}\n", self.next, base64(script.as_bytes()));
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = stream.as_mut().is_some_and(|stream| stream.write_all(line.as_bytes()).is_ok());
        if !sent {
            return Err(Error(format!("{}: the machine is not there", self.machine)));
        }
        Ok(Job { machine: self.machine.clone(), said, lines: Vec::new() })
    }
}

impl Job {
    /// The next line it prints, or its status at the end.
    pub fn next(&mut self, until: Instant) -> Result<std::result::Result<String, i32>> {
        match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Said::Line(line)) => {
                self.lines.push(line.clone());
                Ok(Ok(line))
            }
            Ok(Said::Ended(status)) => Ok(Err(status)),
            Err(RecvTimeoutError::Timeout) => Err(Error(format!(
                "{}: it has not finished in time; so far it said: {}",
                self.machine,
                self.lines.last().map_or("nothing", String::as_str)
            ))),
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error(format!("{}: the machine went away", self.machine)))
            }
        }
    }

    /// Waits for its end. What it printed, if it ended well.
    pub fn finish(mut self, patience: Duration) -> Result<Vec<String>> {
        let until = Instant::now() + patience;
        loop {
            match self.next(until)? {
                Ok(_) => {}
                Err(0) => return Ok(self.lines),
                Err(status) => {
                    return Err(Error(format!(
                        "{}: a command failed with status {status}: {}",
                        self.machine,
                        self.lines.join(" | ")
                    )));
                }
            }
        }
    }
}

fn hear(reader: impl BufRead, listeners: &Listeners) {
    for line in reader.split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        let Some(end) = line.find([':', '!']) else { continue };
        let Ok(number) = line[..end].parse::<u32>() else { continue };
        let rest = &line[end + 1..];
        let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if line[end..].starts_with(':') {
            if let Some(listener) = listeners.get(&number) {
                let _ = listener.send(Said::Line(rest.to_owned()));
            }
        } else if let Some(listener) = listeners.remove(&number) {
            let _ = listener.send(Said::Ended(rest.trim().parse().unwrap_or(-1)));
        }
    }
    listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..4 {
            text.push(if index <= chunk.len() {
                char::from(ALPHABET[(word >> (18 - 6 * index) & 0x3f) as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        let rows = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, expected) in rows {
            assert_eq!(base64(plain.as_bytes()), expected);
        }
    }

    #[test]
    fn what_scripts_say_reaches_those_who_wait_for_them() {
        let listeners = Listeners::default();
        let mut jobs: Vec<Job> = (1..=2)
            .map(|number| {
                let (sender, said) = mpsc::channel();
                listeners.lock().unwrap().insert(number, sender);
                Job { machine: "rs1".to_owned(), said, lines: Vec::new() }
            })
            .collect();
        hear(&b"noise\n1:a: b!\n2:x\n7:lost\n1!0\n2:y\n2!3\n"[..], &listeners);
        let patience = Duration::from_secs(10);
        let second = jobs.pop().unwrap().finish(patience).unwrap_err().to_string();
        assert!(second.contains("rs1") && second.contains("status 3"), "{second}");
        assert!(second.contains("x | y"), "{second}");
        assert_eq!(jobs.pop().unwrap().finish(patience).unwrap(), ["a: b!"]);
    }

    #[test]
    fn a_machine_that_goes_away_is_an_error_and_no_hang() {
        let listeners = Listeners::default();
        let (sender, said) = mpsc::channel();
        listeners.lock().unwrap().insert(1, sender);
        let job = Job { machine: "rs1".to_owned(), said, lines: Vec::new() };
        hear(&b"1:half"[..], &listeners);
        let error = job.finish(Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.contains("went away"), "{error}");
    }
}

//! Those who come to look at a running lab: `vm-lab-shell`, `vm-lab-status`, `vm-lab-capture`.
//!
//! A running lab leaves the path of its folder in `CACHE/running`; its sockets are in there.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::build::{Error, Result};

/// Ends a shell's session from this side, as telnet has it: Ctrl-].
const DETACH: u8 = 0x1d;

/// Says where a lab runs, as long as it does.
pub struct Registration {
    path: PathBuf,
}

impl Registration {
    /// Refuses where another lab runs.
    pub fn new(cache: &Path, folder: &Path) -> Result<Registration> {
        let path = cache.join("running");
        if running(cache).is_ok() {
            return Err(Error::new(
                "a lab runs already: use it (make vm-lab-status), or end it with Ctrl-C",
            ));
        }
        fs::write(&path, folder.display().to_string())
            .map_err(|error| Error(format!("{}: {error}", path.display())))?;
        Ok(Registration { path })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder of the lab that runs.
pub fn running(cache: &Path) -> Result<PathBuf> {
    let none = || Error::new("no lab is running: make vm-lab");
    let folder = PathBuf::from(fs::read_to_string(cache.join("running")).map_err(|_| none())?);
    // One that was killed leaves its name behind.
    UnixStream::connect(folder.join("lab.visit")).map_err(|_| none())?;
    Ok(folder)
}

/// What a visitor wants of the lab's own process.
pub enum Visit {
    Capture { segment: String, sink: UnixStream },
    Status { sink: UnixStream },
}

/// Takes visitors from now on.
pub fn listen(folder: &Path, visits: Sender<Visit>) -> Result<()> {
    let path = folder.join("lab.visit");
    let listener =
        UnixListener::bind(&path).map_err(|error| Error(format!("{}: {error}", path.display())))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let visits = visits.clone();
            thread::spawn(move || {
                let mut line = Vec::new();
                for byte in stream.try_clone().into_iter().flat_map(Read::bytes) {
                    match byte {
                        Ok(b'\n') | Err(_) => break,
                        Ok(_) if line.len() > 100 => break,
                        Ok(byte) => line.push(byte),
                    }
                }
                let line = String::from_utf8_lossy(&line).into_owned();
                let visit = match line.split_once(' ') {
                    Some(("capture", segment)) => {
                        Visit::Capture { segment: segment.to_owned(), sink: stream }
                    }
                    _ if line == "status" => Visit::Status { sink: stream },
                    _ => return,
                };
                let _ = visits.send(visit);
            });
        }
    });
    Ok(())
}

/// Copies what the lab says about itself.
pub fn status(cache: &Path) -> Result<()> {
    ask(&running(cache)?, "status", &mut io::stdout())
}

/// Copies the frames of a segment, as a capture file, until somebody ends it.
pub fn capture(cache: &Path, segment: &str, file: Option<&Path>) -> Result<()> {
    let folder = running(cache)?;
    if !folder.join(format!("{segment}.director")).exists() {
        return Err(Error(format!("there is no segment {segment:?} in this lab: front, or back")));
    }
    match file {
        Some(path) => {
            let mut file = fs::File::create(path)
                .map_err(|error| Error(format!("{}: {error}", path.display())))?;
            eprintln!("capturing {segment} into {}: Ctrl-C ends it", path.display());
            ask(&folder, &format!("capture {segment}"), &mut file)
        }
        None if io::stdout().is_terminal() => Err(Error::new(
            "a capture is nothing for a terminal: name a file, or give it to another program \
             (… | tcpdump -nr -)",
        )),
        None => ask(&folder, &format!("capture {segment}"), &mut io::stdout()),
    }
}

/// A shell in a machine.
pub fn shell(cache: &Path, machine: &str) -> Result<()> {
    let folder = running(cache)?;
    let socket = folder.join(format!("{machine}.shell"));
    if !socket.exists() {
        let mut names: Vec<String> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some(entry.file_name().to_str()?.strip_suffix(".shell")?.to_owned())
            })
            .collect();
        names.sort();
        let why = if machine == "director" {
            "the director's machine has vipr and nothing else: make vm-lab-status asks it"
                .to_owned()
        } else {
            format!("there is no machine {machine:?}")
        };
        return Err(Error(format!("{why}; shells are in: {}", names.join(", "))));
    }
    let stream = UnixStream::connect(&socket)
        .map_err(|error| Error(format!("{machine}: its console is in use: {error}")))?;
    let terminal = Terminal::raw();
    eprint!("{machine}: Ctrl-] leaves it\r\n");
    let result = converse(stream);
    drop(terminal);
    eprintln!();
    result.map_err(|error| Error(format!("{machine}: {error}")))
}

fn ask(folder: &Path, what: &str, to: &mut dyn Write) -> Result<()> {
    let failed = |error: io::Error| Error(format!("the lab: {error}"));
    let mut stream = UnixStream::connect(folder.join("lab.visit")).map_err(failed)?;
    writeln!(stream, "{what}").map_err(failed)?;
    let mut buffer = [0; 65_536];
    loop {
        let len = stream.read(&mut buffer).map_err(failed)?;
        if len == 0 {
            return Ok(());
        }
        // Whoever reads it may have seen enough.
        if to.write_all(&buffer[..len]).and_then(|()| to.flush()).is_err() {
            return Ok(());
        }
    }
}

fn converse(mut stream: UnixStream) -> io::Result<()> {
    let mut output = stream.try_clone()?;
    // A prompt, for a shell that waits.
    stream.write_all(b"\n")?;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = output.read(&mut buffer) {
            let mut stdout = io::stdout();
            if stdout.write_all(&buffer[..len]).and_then(|()| stdout.flush()).is_err() {
                break;
            }
        }
    });
    let mut buffer = [0; 1024];
    loop {
        let len = io::stdin().read(&mut buffer)?;
        let typed = &buffer[..len];
        if len == 0 || typed.contains(&DETACH) {
            return Ok(());
        }
        stream.write_all(typed)?;
    }
}

/// The terminal as programs in the machine expect it, and again as it was.
struct Terminal {
    before: Option<Termios>,
}

impl Terminal {
    fn raw() -> Terminal {
        let before = tcgetattr(io::stdin().as_fd()).ok();
        if let Some(mut termios) = before.clone() {
            termios.make_raw();
            let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &termios);
        }
        Terminal { before }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, before);
        }
    }
}

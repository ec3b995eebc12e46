//! A router in this process, with its real event loop, watch and control socket. Its ports are in
//! memory, so no privilege is needed.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use serde_json::Value;
use tempfile::TempDir;
use vipr::config::snapshot::Segment;
use vipr::port::{Batch, Port, Readiness};
use vipr::shell::control::Control;
use vipr::shell::event_loop::EventLoop;
use vipr::shell::ports::{OpenError, Opener};
use vipr::shell::signals::Signals;
use vipr::shell::watch::Loaded;
use vipr::wire::Offload;

/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Frames that arrive on TAPs, by name, and what wakes who reads them.
#[derive(Default)]
struct Lan {
    arriving: Vec<(String, Vec<u8>)>,
    wake: Vec<Arc<OwnedFd>>,
}

pub struct Router {
    pub directory: TempDir,
    lan: Arc<Mutex<Lan>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    /// A router that runs on this configuration, with its control socket beside the file.
    pub fn start(text: &str) -> Router {
        Router::start_with(text, false)
    }

    /// One that obeys this process's signals.
    pub fn start_with_signals(text: &str) -> Router {
        Router::start_with(text, true)
    }

    fn start_with(text: &str, signals: bool) -> Router {
        let directory = tempfile::tempdir().expect("a directory");
        let (stop, lan) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Lan>>::default());
        let (started, is_started) = mpsc::channel();
        let file = directory.path().join("vipr.toml");
        fs::write(&file, with_socket(text, &directory.path().join("vipr.sock"))).expect("a file");
        let opener = Memory(Arc::clone(&lan));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let signals = signals.then(|| Signals::catch().expect("signals"));
            let loaded = Loaded::read(&file).expect("it is valid");
            let control = Control::bind(&loaded.snapshot.router.control_socket).expect("a socket");
            let mut event_loop = EventLoop::start(loaded, opener, 7).expect("a loop");
            event_loop.serve_control(control).expect("a served socket");
            if let Some(signals) = signals {
                event_loop.obey(signals).expect("signals");
            }
            started.send(()).expect("someone waits");
            while !until.load(Ordering::Acquire) {
                event_loop.step(Some(Duration::from_millis(5))).expect("a turn");
            }
        });
        is_started.recv_timeout(PATIENCE).expect("it starts");
        Router { directory, lan, stop, thread: Some(thread) }
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("vipr.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("vipr.sock")
    }

    /// Makes this its configuration, in one step.
    pub fn write(&self, text: &str) {
        let new = self.beside(text);
        fs::rename(new, self.file()).expect("a rename");
    }

    /// Writes the configuration beside its own.
    pub fn beside(&self, text: &str) -> PathBuf {
        let new = self.directory.path().join("new.toml");
        fs::write(&new, with_socket(text, &self.socket())).expect("a file");
        new
    }

    /// A frame arrives.
    pub fn arrive(&self, tap: &str, frame: Vec<u8>) {
        let mut lan = self.lan.lock().expect("the LAN");
        lan.arriving.push((tap.to_owned(), frame));
        for port in &lan.wake {
            rustix::io::write(port, &1u64.to_ne_bytes()).expect("a wake-up");
        }
    }

    /// Asks with the program: exit status, standard output, standard error.
    pub fn vipr(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        vipr(arguments, &self.socket())
    }

    pub fn status(&self) -> Value {
        let (code, stdout, stderr) = self.vipr(&["status", "--json"]);
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str(&stdout).expect("JSON")
    }

    pub fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().expect("a number")
    }

    /// Waits until the status is so.
    pub fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if holds(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{what}: {status:#}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the router panicked");
        }
    }
}

/// The program with these arguments, asking at `socket`.
pub fn vipr(arguments: &[&str], socket: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipr"));
    command.args(arguments).stdin(Stdio::null()).env("VIPR_SOCKET", socket);
    let Output { status, stdout, stderr } = command.output().expect("vipr can be started");
    let text = |bytes| String::from_utf8(bytes).expect("what vipr prints is UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// The configuration with its control socket there, unless it has one.
pub fn with_socket(text: &str, socket: &Path) -> String {
    if text.contains("control_socket") {
        return text.to_owned();
    }
    let line = format!("[router]\ncontrol_socket = \"{}\"\n", socket.display());
    if text.contains("[router]\n") { text.replacen("[router]\n", &line, 1) } else { line + text }
}

struct Memory(Arc<Mutex<Lan>>);

impl Opener for Memory {
    type Port = MemoryPort;

    fn open(&mut self, segment: &Segment) -> Result<MemoryPort, OpenError> {
        let event = Arc::new(eventfd(0, EventfdFlags::NONBLOCK)?);
        self.0.lock().expect("the LAN").wake.push(Arc::clone(&event));
        Ok(MemoryPort { lan: Arc::clone(&self.0), tap: segment.device().to_string(), event })
    }
}

struct MemoryPort {
    lan: Arc<Mutex<Lan>>,
    tap: String,
    event: Arc<OwnedFd>,
}

impl Port for MemoryPort {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<Readiness> {
        // It is emptied by being read, and that is all that is wanted.
        let _ = rustix::io::read(&*self.event, &mut [0; 8]);
        let mut lan = self.lan.lock().expect("the LAN");
        let mine = |(tap, _): &mut (String, Vec<u8>)| *tap == self.tap;
        for (_, frame) in lan.arriving.extract_if(.., mine) {
            batch.push_with(|buffer| {
                buffer[..frame.len()].copy_from_slice(&frame);
                Ok::<_, io::Error>((frame.len(), Offload::default()))
            })?;
        }
        Ok(Readiness::Drained)
    }

    fn send(&mut self, _bytes: &[u8], _offload: Offload) -> io::Result<()> {
        Ok(())
    }

    fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    fn mtu(&self) -> io::Result<u16> {
        Ok(1500)
    }
}

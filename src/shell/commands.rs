//! Runs the commands of checks of kind `exec`, off the thread that moves frames: each by a thread
//! of its own that waits for its end, a bounded number at a time. A command that takes too long is
//! killed, with all it has started.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::pipe;
use mio::{Interest, Registry};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::tokens;
use crate::director::{CommandRun, RunId};

/// Commands at a time; the others wait for their turn.
pub const RUNNING_MAX: usize = 32;
/// Bytes of what a command says that are looked at.
const OUTPUT_LEN_MAX: usize = 4096;
/// Characters of it that are told.
const TOLD_MAX: usize = 120;

/// How a command ended: well, or why not.
pub(super) type Ended = (RunId, Result<(), String>);

/// Everything about commands.
pub(super) struct Commands {
    waiting: VecDeque<CommandRun>,
    running: usize,
    results: Receiver<Ended>,
    sender: Sender<Ended>,
    /// Made with the first command.
    bell: Option<Bell>,
}

/// A pipe that the threads write to, so that the event loop looks.
struct Bell {
    sender: pipe::Sender,
    receiver: pipe::Receiver,
}

impl Commands {
    pub fn new() -> Commands {
        let (sender, results) = mpsc::channel();
        Commands { waiting: VecDeque::new(), running: 0, results, sender, bell: None }
    }

    /// Runs a command, in its turn.
    pub fn start(&mut self, registry: &Registry, run: CommandRun) {
        self.waiting.push_back(run);
        self.start_waiting(registry);
    }

    /// The commands that have ended.
    pub fn ended(&mut self, registry: &Registry) -> Vec<Ended> {
        if let Some(bell) = &mut self.bell {
            while bell.receiver.read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
        }
        let ended: Vec<Ended> = self.results.try_iter().collect();
        self.running = self.running.saturating_sub(ended.len());
        self.start_waiting(registry);
        ended
    }

    fn start_waiting(&mut self, registry: &Registry) {
        while self.running < RUNNING_MAX
            && let Some(run) = self.waiting.pop_front()
        {
            let id = run.id;
            self.running += 1;
            let started = self.bell(registry).and_then(|bell| {
                let results = self.sender.clone();
                thread::Builder::new().name("check".to_owned()).spawn(move || {
                    // A router that is gone needs no result.
                    let _ = results.send((run.id, carry_out(&run)));
                    let _ = (&bell).write(&[1]);
                })
            });
            if let Err(error) = started {
                let _ = self.sender.send((id, Err(format!("cannot be started: {error}"))));
                if let Some(bell) = &self.bell {
                    let _ = (&bell.sender).write(&[1]);
                }
            }
        }
    }

    /// The writing end of the bell, for another thread.
    fn bell(&mut self, registry: &Registry) -> io::Result<std::fs::File> {
        if self.bell.is_none() {
            let (sender, mut receiver) = pipe::new()?;
            registry.register(&mut receiver, tokens::COMMANDS, Interest::READABLE)?;
            self.bell = Some(Bell { sender, receiver });
        }
        match &self.bell {
            Some(bell) => Ok(std::fs::File::from(rustix::io::dup(&bell.sender)?)),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Runs a command to its end, or to its time.
fn carry_out(run: &CommandRun) -> Result<(), String> {
    let Some((program, arguments)) = run.command.split_first() else {
        return Err("no command".to_owned());
    };
    let (mut reader, writer) = io::pipe().map_err(|error| error.to_string())?;
    let errors = writer.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(&**program);
    command
        .args(arguments.iter().map(|argument| &**argument))
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(run.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        // With all it starts, so that all of it can be killed.
        .process_group(0);
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    // Only the child has the writing ends now.
    drop(command);
    let deadline = Instant::now() + run.timeout;
    let mut output = Vec::new();
    let status = wait(&mut child, &mut reader, &mut output, deadline);
    match status {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(told(&output).unwrap_or_else(|| status.to_string())),
        Ok(None) => Err(format!("killed after {:?}", run.timeout)),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// Waits for the end of a child and reads what it says meanwhile; `None` if it had to be killed.
fn wait(
    child: &mut Child,
    reader: &mut io::PipeReader,
    output: &mut Vec<u8>,
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut waited =
            vec![PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&*reader, PollFlags::IN)];
        waited.truncate(if open { 2 } else { 1 });
        let timeout = Timespec::try_from(left.min(Duration::from_secs(3600))).ok();
        let found = match rustix::event::poll(&mut waited, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            found => found?,
        };
        let ended = !waited[0].revents().is_empty();
        let speaks = waited.get(1).is_some_and(|reader| !reader.revents().is_empty());
        drop(waited);
        if speaks {
            let mut buffer = [0; 1024];
            let len = reader.read(&mut buffer)?;
            open = len > 0;
            let room = OUTPUT_LEN_MAX.saturating_sub(output.len());
            output.extend_from_slice(&buffer[..len.min(room)]);
        } else if ended {
            // What it has started may go on; that is not waited for.
            let status = child.wait()?;
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            return Ok(Some(status));
        } else if found == 0 {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            child.wait()?;
            return Ok(None);
        }
        if left.is_zero() && !ended {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            child.wait()?;
            return Ok(None);
        }
    }
}

/// The last line that a command said.
fn told(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let printable = |character: char| if character.is_control() { '?' } else { character };
    Some(line.chars().take(TOLD_MAX).map(printable).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn run(script: &str, timeout: Duration) -> Result<(), String> {
        let words = ["/bin/sh", "-c", script];
        let id = RunId::for_tests();
        let environment = vec![("VIPR_REAL_SERVER", "rs1".to_owned())];
        let command = words.map(Arc::from).to_vec();
        carry_out(&CommandRun { id, command, timeout, environment })
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_command_is_judged_by_its_exit_status_and_its_last_line_says_why() {
        assert_eq!(run("exit 0", LONG), Ok(()));
        assert_eq!(run("[ $VIPR_REAL_SERVER = rs1 ] && [ -z \"$HOME\" ]", LONG), Ok(()));
        assert_eq!(run("echo one; echo 'two more' >&2; exit 3", LONG), Err("two more".into()));
        assert_eq!(run("exit 3", LONG), Err("exit status: 3".into()));
        assert_eq!(run("head -c 1000000 /dev/zero | tr '\\0' x; exit 1", LONG), {
            Err("x".repeat(TOLD_MAX))
        });
        let missing = carry_out(&CommandRun {
            id: RunId::for_tests(),
            command: vec!["/nonexistent/check".into()],
            timeout: LONG,
            environment: vec![],
        });
        assert!(missing.unwrap_err().starts_with("/nonexistent/check: "));
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed_with_what_it_started() {
        let result = run("sleep 1000 & exec sleep 1000", Duration::from_millis(50));
        assert_eq!(result, Err("killed after 50ms".to_owned()));
        // One that leaves something behind with its output open is not waited for.
        assert_eq!(run("sleep 1000 & exit 0", LONG), Ok(()));
    }
}

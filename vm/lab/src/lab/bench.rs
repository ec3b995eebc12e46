//! What an image costs: its size, the time until it answers ARP, the memory vipr takes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cluster::run_folder;
use super::machine::{self, Accelerator, Boot, Machine, Plan};
use super::stop;
use crate::build::{Error, Result};

/// How long the first answer may take on a host that has better things to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
const ROUNDS: usize = 5;

/// What is asked for, and by whom: the VIP and a client of `config`.
const VIP: [u8; 4] = [192, 0, 2, 10];
const CLIENT: [u8; 4] = [192, 0, 2, 100];
const CLIENT_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x64];

/// Boots the image a few times and prints the median of what was measured.
pub fn run(kernel: &Path, initrd: &Path) -> Result<()> {
    stop::on_signals().map_err(|error| Error(format!("signals: {error}")))?;
    println!("{}", machine::version()?);
    let bytes = fs::metadata(initrd)
        .map_err(|error| Error(format!("{}: {error}: make image", initrd.display())))?
        .len();
    println!("image without kernel: {:.2} MB compressed (target: 3)", bytes as f64 / 1e6);
    let mut times = Vec::new();
    for round in 1..=ROUNDS {
        let (time, memory) = measure(kernel, initrd)?;
        stop::check()?;
        println!(
            "round {round}: first ARP reply after {:.2} s; {}",
            time.as_secs_f64(),
            memory.as_deref().unwrap_or("the machine did not tell vipr's memory")
        );
        times.push(time);
    }
    times.sort();
    println!(
        "first ARP reply after QEMU starts, median of {ROUNDS}: {:.2} s (target: 3, under TCG)",
        times[ROUNDS / 2].as_secs_f64()
    );
    Ok(())
}

fn measure(kernel: &Path, initrd: &Path) -> Result<(Duration, Option<String>)> {
    let folder = run_folder()?;
    let boot = Boot::Kernel {
        kernel: kernel.to_owned(),
        initrd: initrd.to_owned(),
        append: "vipr.log=debug".to_owned(),
    };
    let plan = Plan::new("bench", 128, boot);
    let (time, mut machine) = boot_until_reply(plan, Accelerator::Tcg, folder.path(), PATIENCE)?;
    let memory = memory(&mut machine);
    drop(machine);
    stop::forget_all();
    Ok((time, memory))
}

/// Boots a machine, with one card more, until the router in it answers ARP for the VIP of
/// `config/only-program.toml`; how long that took from QEMU's start.
pub fn boot_until_reply(
    mut plan: Plan,
    accelerator: Accelerator,
    folder: &Path,
    patience: Duration,
) -> Result<(Duration, Machine)> {
    let cable = folder.join(format!("{}.cable", plan.name));
    let listener = UnixListener::bind(&cable)
        .map_err(|error| Error(format!("{}: {error}", cable.display())))?;
    plan.cards.push(("52:54:00:00:fe:01".to_owned(), cable));
    let start = Instant::now();
    let mut machine = Machine::start(&plan, accelerator, folder)?;
    stop::note(machine.pid());
    match first_reply(&listener, &mut machine, start, patience) {
        Ok(time) => Ok((time, machine)),
        Err(error) => {
            let said = machine.last_words();
            drop(machine);
            stop::forget_all();
            Err(Error(format!("{error}; its console:\n{said}")))
        }
    }
}

/// Asks by ARP for the VIP until there is an answer.
fn first_reply(
    listener: &UnixListener,
    machine: &mut Machine,
    start: Instant,
    patience: Duration,
) -> Result<Duration> {
    let failed = |error: std::io::Error| Error(format!("bench: {error}"));
    let (mut stream, _) = listener.accept().map_err(failed)?;
    stream.set_read_timeout(Some(ASK_INTERVAL)).map_err(failed)?;
    let mut received = Vec::new();
    let mut buffer = [0; 65_536];
    while start.elapsed() < patience {
        stop::check()?;
        let question = question();
        let len = (question.len() as u32).to_be_bytes();
        stream.write_all(&[&len[..], &question].concat()).map_err(failed)?;
        if let Ok(len @ 1..) = stream.read(&mut buffer) {
            received.extend_from_slice(&buffer[..len]);
            if has_answer(&mut received) {
                return Ok(start.elapsed());
            }
        }
        if !machine.is_running() {
            return Err(Error::new("bench: the machine has ended"));
        }
    }
    Err(Error(format!("bench: no answer to ARP within {} s", patience.as_secs())))
}

/// Waits for the line in which `vipr init` tells what it takes.
fn memory(machine: &mut Machine) -> Option<String> {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end && machine.is_running() {
        let text = machine.console_text();
        if let Some(line) = text.lines().find(|line| line.contains("init: memory: ")) {
            return line.split("init: ").nth(1).map(|line| line.trim().to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Who has the VIP?
fn question() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(CLIENT_MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(CLIENT_MAC);
    frame.extend(CLIENT);
    frame.extend([0; 6]);
    frame.extend(VIP);
    frame.resize(60, 0);
    frame
}

/// Whether there is an ARP reply for the VIP among the frames; takes whole frames away.
fn has_answer(received: &mut Vec<u8>) -> bool {
    while let Some(len) = received.first_chunk().map(|len| u32::from_be_bytes(*len) as usize) {
        if received.len() < 4 + len {
            return false;
        }
        let frame: Vec<u8> = received.drain(..4 + len).skip(4).collect();
        let is_reply = frame.get(12..14) == Some(&[0x08, 0x06]) && frame.get(21) == Some(&2);
        if is_reply && frame.get(28..32) == Some(&VIP) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_among_whole_frames_only() {
        let mut reply = question();
        (reply[21], reply[28], reply[29], reply[30], reply[31]) = (2, 192, 0, 2, 10);
        let framed = |frame: &[u8]| [&(frame.len() as u32).to_be_bytes()[..], frame].concat();
        let mut received = [framed(&question()), framed(&reply)].concat();
        let last = received.pop().unwrap();
        assert!(!has_answer(&mut received), "half a frame");
        received.push(last);
        assert!(has_answer(&mut received));
        assert!(received.is_empty());
    }
}

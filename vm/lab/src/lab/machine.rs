//! A virtual machine: QEMU, its console in a file, its end with ours. Or a process that stands for
//! one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::build::{Error, Result};

const QEMU: &str = "qemu-system-x86_64";
/// How long QEMU may take to end when it is asked to.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How long a machine may take to say that it has started, where hardware virtualisation is tried.
const PROBE_PATIENCE: Duration = Duration::from_secs(8);
/// Lines of a console that are shown when something went wrong.
const CONSOLE_SHOWN: usize = 15;

/// What the kernel is told beside where its console is. Each of these saves time where machines are
/// emulated, and takes nothing away that they use:
/// - on a busy host the kernel's check of its timer fails for no reason of ours;
/// - the algorithms of the kernel's crypto need no test at each start, nor does one of key derivation
///   that the first option leaves out;
/// - nobody traces by kprobes, and their part of tracefs is large;
/// - instructions for several processors may stay as they are: code that is changed has to be
///   translated again.
const KERNEL_WORDS: &str = "console=ttyS0 panic=-1 quiet no_timer_check cryptomgr.notests \
     initcall_blacklist=crypto_kdf108_init,init_kprobe_trace noreplace-smp";

/// How machines are made to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// With the processor's help.
    Kvm,
    /// By translation: slower, and works everywhere.
    Tcg,
}

/// What a machine is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub memory_mib: u32,
    pub boot: Boot,
    /// The MAC addresses of its cards, and the sockets of their cables.
    pub cards: Vec<(String, PathBuf)>,
    /// What its cards are.
    pub model: CardModel,
    /// Files that are disks to it; they stay as they are.
    pub disks: Vec<PathBuf>,
    pub ports: Vec<HostPort>,
}

impl Plan {
    /// A machine with nothing but what it starts from.
    pub fn new(name: &str, memory_mib: u32, boot: Boot) -> Plan {
        Plan {
            name: name.to_owned(),
            memory_mib,
            boot,
            cards: Vec::new(),
            model: CardModel::Virtio,
            disks: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// What it starts from.
#[derive(Clone, Debug)]
pub enum Boot {
    Kernel {
        kernel: PathBuf,
        initrd: PathBuf,
        /// Words for the kernel beside those about console and panics.
        append: String,
    },
    /// A disk, by UEFI; the disk stays as it is.
    Disk { firmware: PathBuf, disk: PathBuf },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CardModel {
    Virtio,
    Vmxnet3,
}

/// A channel between a machine and the host.
#[derive(Clone, Debug)]
pub struct HostPort {
    pub kind: PortKind,
    pub socket: PathBuf,
}

#[derive(Clone, Debug)]
pub enum PortKind {
    /// A terminal; QEMU listens.
    Terminal,
    /// A port of this name; QEMU listens.
    Listening(&'static str),
    /// A port of this name; QEMU connects.
    Connecting(&'static str),
}

/// A running machine. It ends when this is dropped.
pub struct Machine {
    pub name: String,
    child: Child,
    console: PathBuf,
    monitor: PathBuf,
}

/// QEMU, if it is there.
pub fn version() -> Result<String> {
    let output = Command::new(QEMU).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        Error(format!("{QEMU}: {error}: install it (apt-get install qemu-system-x86)"))
    })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or(QEMU).to_owned())
}

/// KVM where machines start with it, else TCG, and why.
pub fn accelerator(plan: &Plan, folder: &Path) -> (Accelerator, &'static str) {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return (Accelerator::Tcg, "/dev/kvm is not there or not open to this user");
    }
    let Ok(mut machine) = Machine::start(plan, Accelerator::Kvm, folder) else {
        return (Accelerator::Tcg, "KVM does not start");
    };
    let end = Instant::now() + PROBE_PATIENCE;
    while Instant::now() < end && machine.is_running() {
        if machine.console_text().contains("lab: ") {
            return (Accelerator::Kvm, "KVM works");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    (Accelerator::Tcg, "there is /dev/kvm, but no machine starts with it")
}

impl Machine {
    /// Starts a program of this host that is one of the cluster; what it says is its console.
    pub fn process(name: &str, program: &Path, words: &[&str], folder: &Path) -> Result<Machine> {
        let console = folder.join(format!("{name}.console"));
        let failed = |error| Error(format!("{name}: {}: {error}", program.display()));
        let said = File::create(&console).map_err(failed)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(said.try_clone().map_err(failed)?)
            .stderr(said)
            .spawn()
            .map_err(failed)?;
        let monitor = folder.join(format!("{name}.qmp"));
        Ok(Machine { name: name.to_owned(), child, console, monitor })
    }

    /// Starts it; its console is `folder/NAME.console`.
    pub fn start(plan: &Plan, accelerator: Accelerator, folder: &Path) -> Result<Machine> {
        let name = &plan.name;
        let console = folder.join(format!("{name}.console"));
        let monitor = folder.join(format!("{name}.qmp"));
        let complaints = File::create(folder.join(format!("{name}.qemu")))
            .map_err(|error| Error(format!("{}: {error}", folder.display())))?;
        let _ = fs::remove_file(&console);
        let _ = fs::remove_file(&monitor);
        // setpriv ends it when this process ends, however that is.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU]);
        command.args(arguments(plan, accelerator, &console, &monitor));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints)
            .spawn()
            .map_err(|error| Error(format!("{name}: QEMU cannot be started: {error}")))?;
        Ok(Machine { name: name.clone(), child, console, monitor })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What is on its console.
    pub fn console_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// What it last said, for a person who wonders what went wrong.
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for path in [self.console.with_extension("qemu"), self.console.clone()] {
            let bytes = fs::read(&path).unwrap_or_default();
            let said = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            for line in lines.iter().skip(lines.len().saturating_sub(CONSOLE_SHOWN)) {
                text.push_str("    ");
                text.extend(line.chars().filter(|letter| !letter.is_control()));
                text.push('\n');
            }
        }
        text
    }

    /// Presses its power button.
    pub fn press_power_button(&self) -> Result<()> {
        self.order("system_powerdown")
    }

    /// Waits for its end by itself.
    pub fn wait_end(&mut self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.is_running() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn order(&self, command: &str) -> Result<()> {
        let failed = |error| Error(format!("{}: QEMU's monitor: {error}", self.name));
        let mut stream = UnixStream::connect(&self.monitor).map_err(failed)?;
        stream.set_read_timeout(Some(END_PATIENCE)).map_err(failed)?;
        let mut lines = BufReader::new(stream.try_clone().map_err(failed)?).lines();
        lines.next();
        for command in ["qmp_capabilities", command] {
            writeln!(stream, "{{\"execute\": \"{command}\"}}").map_err(failed)?;
            for line in lines.by_ref() {
                let line = line.map_err(failed)?;
                if line.contains("\"return\"") {
                    break;
                }
                if line.contains("\"error\"") {
                    return Err(Error(format!("{}: QEMU's monitor: {line}", self.name)));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(pid) =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
            && self.is_running()
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            if !self.wait_end(END_PATIENCE) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

fn arguments(plan: &Plan, accelerator: Accelerator, console: &Path, monitor: &Path) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        "q35",
        "-smp",
        "1",
        "-device",
        "virtio-serial-pci",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut add = |option: &str, value: String| {
        arguments.push(option.to_owned());
        arguments.push(value);
    };
    match accelerator {
        Accelerator::Kvm => {
            add("-accel", "kvm".to_owned());
            add("-cpu", "host".to_owned());
        }
        Accelerator::Tcg => {
            add("-accel", "tcg".to_owned());
            // Each feature more makes the kernel change more of its code at its start; random
            // numbers it would have to wait for.
            add("-cpu", "qemu64,+rdrand".to_owned());
        }
    }
    add("-name", plan.name.clone());
    add("-m", plan.memory_mib.to_string());
    add("-serial", format!("file:{}", console.display()));
    add("-qmp", format!("unix:{},server=on,wait=off", monitor.display()));
    match &plan.boot {
        Boot::Kernel { kernel, initrd, append } => {
            add("-kernel", kernel.display().to_string());
            add("-initrd", initrd.display().to_string());
            let name = &plan.name;
            let words = format!("{KERNEL_WORDS} lab.name={name} {append}");
            add("-append", words.trim().to_owned());
        }
        Boot::Disk { firmware, disk } => {
            let (firmware, disk) = (firmware.display(), disk.display());
            add("-drive", format!("if=pflash,format=raw,readonly=on,file={firmware}"));
            add("-drive", format!("if=virtio,format=raw,snapshot=on,file={disk}"));
        }
    }
    for (number, (mac, socket)) in plan.cards.iter().enumerate() {
        let socket = socket.display();
        add(
            "-netdev",
            format!("stream,id=net{number},server=off,addr.type=unix,addr.path={socket}"),
        );
        let model = match plan.model {
            // A card that tells its link's state is down to Linux at first, and up only a second
            // after it was found (linkwatch); until then a bridge forwards nothing to it.
            CardModel::Virtio => "virtio-net-pci,status=off",
            CardModel::Vmxnet3 => "vmxnet3",
        };
        add("-device", format!("{model},netdev=net{number},mac={mac},romfile="));
    }
    for disk in &plan.disks {
        add("-drive", format!("if=virtio,format=raw,snapshot=on,file={}", disk.display()));
    }
    for (number, port) in plan.ports.iter().enumerate() {
        let mode = match port.kind {
            PortKind::Terminal | PortKind::Listening(_) => "server=on,wait=off",
            PortKind::Connecting(_) => "server=off",
        };
        let socket = port.socket.display();
        add("-chardev", format!("socket,id=port{number},path={socket},{mode}"));
        let device = match port.kind {
            PortKind::Terminal => format!("virtconsole,chardev=port{number}"),
            PortKind::Listening(name) | PortKind::Connecting(name) => {
                format!("virtserialport,chardev=port{number},name={name}")
            }
        };
        add("-device", device);
    }
    arguments
}

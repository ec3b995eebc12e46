//! A direct-routing cluster of virtual machines: built, booted, set up, asked.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::agent::{Agent, Job};
use super::assets::Assets;
use super::description::{
    CLIENT_ADDRESS, CLIENT_MAC, Description, HOST_FRONT, Topology, back_mac, director_card,
    front_mac,
};
use super::hub::{Cable, Hub};
use super::machine::{self, Accelerator, Boot, HostPort, Machine, Plan, PortKind};
use super::setup;
use super::stop;
use crate::build::{Error, Result, write};

/// How long a machine may take until it does what it is told, in seconds.
const BOOT_SECONDS: u64 = 90;
/// How long anything in it may take, in seconds.
const SECONDS: u64 = 60;
/// How long the router may take to answer a question, in seconds.
const ANSWER_SECONDS: u64 = 5;
/// The file of a director on the host, in the lab's folder.
const HOST_CONFIG: &str = "vipr.toml";
/// Between two looks at something that is to change.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What QEMU takes beside a machine's memory.
const QEMU_MIB: u64 = 130;

/// How long a machine may take until it does what it is told.
pub fn boot_patience() -> Duration {
    Duration::from_secs(BOOT_SECONDS * factor())
}

/// How long anything in it may take.
pub fn patience() -> Duration {
    Duration::from_secs(SECONDS * factor())
}

/// `VIPR_LAB_PATIENCE=3` is for a host that is slow, or busy with something else.
fn factor() -> u64 {
    let set = std::env::var("VIPR_LAB_PATIENCE").ok().and_then(|text| text.parse().ok());
    set.unwrap_or(1).clamp(1, 20)
}

/// What directs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectorKind {
    /// vipr, alone in its machine.
    Vipr,
    /// vipr, in a process of this host: the machines' cards end at its sockets.
    Host,
    /// The kernel's IPVS, in an ordinary machine.
    Ipvs,
}

impl DirectorKind {
    pub fn is_vipr(self) -> bool {
        self != DirectorKind::Ipvs
    }

    fn configuration(self, description: &Description) -> String {
        match self {
            DirectorKind::Host => description.configuration_on_host(),
            DirectorKind::Vipr | DirectorKind::Ipvs => description.configuration(),
        }
    }
}

/// A running cluster; it ends, with all its files, when this is dropped.
pub struct Cluster {
    // The order matters: machines end before the files they use are removed.
    machines: Vec<Machine>,
    pub hub: Hub,
    pub client: Agent,
    /// By number, from 0.
    pub servers: Vec<Agent>,
    /// Where IPVS directs, its machine.
    pub director: Option<Agent>,
    pub description: Description,
    pub kind: DirectorKind,
    configuration: String,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Builds and boots the cluster and waits until everyone has their part.
    pub fn boot(
        assets: &Assets,
        description: Description,
        kind: DirectorKind,
        accelerator: Accelerator,
    ) -> Result<Cluster> {
        let folder = run_folder()?;
        let planner = Planner { assets, description: &description, folder: folder.path() };
        let cables = planner.cables(kind);
        let hub = Hub::start(&cables).map_err(|error| Error(format!("the network: {error}")))?;
        for segment in description.segments() {
            hub.set_faults(segment, description.faults(segment));
        }
        let listen = |name: &str| Agent::listen(name, &folder.path().join(format!("{name}.agent")));
        let client = listen("client")?;
        let names = (1..=description.real_server.len()).map(|number| format!("rs{number}"));
        let servers = names.map(|name| listen(&name)).collect::<Result<Vec<_>>>()?;
        let director = match kind {
            DirectorKind::Vipr | DirectorKind::Host => None,
            DirectorKind::Ipvs => Some(listen("director")?),
        };
        let mut cluster = Cluster {
            machines: Vec::new(),
            hub,
            client,
            servers,
            director,
            configuration: kind.configuration(&description),
            kind,
            folder,
            description,
        };
        if kind == DirectorKind::Host {
            cluster.start_on_host(&assets.program)?;
        }
        let planner =
            Planner { assets, description: &cluster.description, folder: cluster.folder.path() };
        for plan in planner.all(kind) {
            let machine = Machine::start(&plan, accelerator, planner.folder)?;
            stop::note(machine.pid());
            cluster.machines.push(machine);
        }
        let result = cluster.set_up();
        match result {
            Ok(()) => Ok(cluster),
            Err(error) => Err(cluster.explain(error)),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The error, with the last words of the machine it is about.
    pub fn explain(&self, error: Error) -> Error {
        let name = error.0.split(':').next().unwrap_or_default();
        match self.machines.iter().find(|machine| machine.name == name) {
            Some(machine) => Error(format!("{error}; its console:\n{}", machine.last_words())),
            None => error,
        }
    }

    /// Keeps the consoles for someone who will look into what went wrong.
    pub fn keep_consoles(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to).map_err(|error| Error(format!("{}: {error}", to.display())))?;
        for entry in fs::read_dir(self.folder()).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_text = path.extension().is_some_and(|e| e == "console" || e == "qemu");
            if is_text && let Some(name) = path.file_name() {
                let _ = fs::copy(&path, to.join(name));
            }
        }
        Ok(())
    }

    /// Starts vipr as a process of this host, before the machines: they connect to it.
    fn start_on_host(&mut self, program: &Path) -> Result<()> {
        let program = fs::canonicalize(program)
            .map_err(|error| Error(format!("{}: {error}", program.display())))?;
        write(&self.folder().join(HOST_CONFIG), self.configuration.as_bytes())?;
        let words = ["run", "-c", HOST_CONFIG];
        let director = Machine::process("director", &program, &words, self.folder())?;
        stop::note(director.pid());
        self.machines.push(director);
        self.wait_for("vipr to start", boot_patience(), |cluster| {
            cluster.server_status().map(|_| ())
        })
        .map_err(|error| self.explain(error))
    }

    fn set_up(&mut self) -> Result<()> {
        let mut jobs = Vec::new();
        let script = setup::client(CLIENT_ADDRESS);
        jobs.push(start_when_up(&mut self.client, &mut self.machines, "client", &script)?);
        for (index, server) in self.servers.iter_mut().enumerate() {
            let name = format!("rs{}", index + 1);
            let script = setup::real_server(&self.description, index + 1);
            jobs.push(start_when_up(server, &mut self.machines, &name, &script)?);
        }
        if let Some(director) = &mut self.director {
            let script = setup::ipvs(&self.description);
            jobs.push(start_when_up(director, &mut self.machines, "director", &script)?);
        }
        if self.kind == DirectorKind::Vipr {
            let outcome = self.push(&self.configuration, boot_patience())?;
            if let Some(diagnostics) = outcome["reload"]["diagnostics"].as_str() {
                return Err(Error(format!(
                    "the director refuses its configuration:\n{diagnostics}"
                )));
            }
        }
        for job in jobs {
            job.finish(boot_patience())?;
        }
        if self.kind.is_vipr() {
            self.wait_for("the director to find its real servers", boot_patience(), |cluster| {
                let servers = cluster.server_status()?;
                let found = |server: &Value| server["mac"].is_string() || is_expected_down(server);
                Some((servers.iter().all(found)).then_some(())).flatten()
            })?;
        }
        Ok(())
    }

    /// Sends a configuration to the director; what it answers.
    pub fn push(&self, text: &str, patience: Duration) -> Result<Value> {
        if self.kind == DirectorKind::Host {
            // Whole, or not at all: the router watches it. And it is asked before it looks by
            // itself, for the answer.
            let next = self.folder().join("next.toml");
            write(&next, text.as_bytes())?;
            fs::rename(&next, self.folder().join(HOST_CONFIG))
                .map_err(|error| Error(format!("{HOST_CONFIG}: {error}")))?;
            return self.exchange("director.control", b"{\"command\":\"reload\"}\n", patience);
        }
        let message = format!("vipr-config {}\n{text}", text.len());
        self.exchange("director.config", message.as_bytes(), patience)
    }

    /// Presses the power button of the director's machine; whether it ended by that.
    pub fn power_off_director(&mut self) -> Result<bool> {
        let Some(at) = self.machines.iter().position(|machine| machine.name == "director") else {
            return Ok(false);
        };
        let mut machine = self.machines.remove(at);
        machine.press_power_button()?;
        Ok(machine.wait_end(patience()) && machine.console_text().contains("init: powering off"))
    }

    /// Takes another description into force, as far as that goes while it runs.
    pub fn follow(&mut self, next: Description) -> Result<Vec<String>> {
        let mut news = Vec::new();
        if next.real_server.len() != self.description.real_server.len() {
            return Err(Error::new(
                "the number of real servers changes at the next start only: end the lab and run \
                 make vm-lab again",
            ));
        }
        for segment in self.description.segments() {
            let faults = next.faults(segment);
            if faults != self.description.faults(segment) {
                news.push(format!("segment {segment}: {faults:?}"));
                self.hub.set_faults(segment, faults);
            }
        }
        let topology = self.description.topology;
        self.description = Description { topology, ..next };
        let configuration = self.kind.configuration(&self.description);
        if configuration != self.configuration && self.kind.is_vipr() {
            news.extend(outcome_lines(&self.push(&configuration, patience())?));
            self.configuration = configuration;
        }
        Ok(news)
    }

    /// What the router answers on its control socket; `None` while it does not.
    pub fn control(&self, request: &str) -> Option<Value> {
        let message = format!("{request}\n");
        let patience = Duration::from_secs(ANSWER_SECONDS * factor());
        self.exchange("director.control", message.as_bytes(), patience).ok()
    }

    /// The real servers of the only service, as the router reports them.
    pub fn server_status(&self) -> Option<Vec<Value>> {
        let status = self.control(r#"{"command":"status"}"#)?;
        status["status"]["services"][0]["real_servers"].as_array().cloned()
    }

    /// Looks again and again until there is what is looked for.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&mut Cluster) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + patience;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            stop::check()?;
            if let Some(gone) = self
                .machines
                .iter_mut()
                .find_map(|machine| (!machine.is_running()).then(|| machine.name.clone()))
            {
                return Err(Error(format!("{gone}: the machine has ended")));
            }
            if Instant::now() >= end {
                return Err(Error(format!(
                    "director: waited {} s in vain for {what}; it says: {}",
                    patience.as_secs(),
                    self.server_status()
                        .map_or("nothing".to_owned(), |s| Value::Array(s).to_string())
                )));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// A line to a port of the director's machine, and the line that comes back.
    fn exchange(&self, port: &str, message: &[u8], patience: Duration) -> Result<Value> {
        let failed = |error: std::io::Error| {
            let why = match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    format!("no answer within {} s", patience.as_secs())
                }
                _ => error.to_string(),
            };
            Error(format!("director: {port}: {why}"))
        };
        let path = self.folder.path().join(port);
        let end = Instant::now() + patience;
        let mut stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                // QEMU has not made it yet.
                Err(_) if Instant::now() < end => thread::sleep(LOOK_INTERVAL),
                Err(error) => return Err(failed(error)),
            }
        };
        stream.set_read_timeout(Some(patience)).map_err(failed)?;
        stream.write_all(message).map_err(failed)?;
        let mut line = String::new();
        let mut reader = BufReader::new(stream);
        while line.trim().is_empty() {
            line.clear();
            if reader.read_line(&mut line).map_err(failed)? == 0 {
                return Err(failed(ErrorKind::UnexpectedEof.into()));
            }
        }
        serde_json::from_str(&line)
            .map_err(|error| Error(format!("director: {port}: {error}: {line}")))
    }
}

/// What came of a push, a line each.
pub fn outcome_lines(outcome: &Value) -> Vec<String> {
    let reload = &outcome["reload"];
    if let Some(diagnostics) = reload["diagnostics"].as_str() {
        return vec![format!("the director refuses it, and goes on as before:\n{diagnostics}")];
    }
    let mut lines = vec![format!(
        "the director: {}, generation {}",
        reload["outcome"].as_str().unwrap_or("?"),
        reload["generation"]
    )];
    let changes = reload["changes"].as_array().into_iter().flatten();
    lines.extend(changes.filter_map(Value::as_str).map(|line| format!("    {line}")));
    lines
}

/// A real server of weight 0 may be looked for later.
fn is_expected_down(server: &Value) -> bool {
    server["weight"].as_u64() == Some(0)
}

fn start_when_up(
    agent: &mut Agent,
    machines: &mut [Machine],
    name: &str,
    script: &str,
) -> Result<Job> {
    let end = Instant::now() + boot_patience();
    while !agent.is_connected() {
        stop::check()?;
        let is_gone =
            machines.iter_mut().any(|machine| machine.name == name && !machine.is_running());
        if is_gone || Instant::now() >= end {
            return Err(Error(format!("{name}: QEMU did not start the machine")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    // It is heard as soon as the machine is up.
    agent.start(script)
}

/// A folder for sockets, whose names must be short, and consoles.
pub fn run_folder() -> Result<tempfile::TempDir> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    let base = base.unwrap_or_else(std::env::temp_dir);
    tempfile::Builder::new()
        .prefix("vipr-lab.")
        .tempdir_in(&base)
        .map_err(|error| Error(format!("{}: {error}", base.display())))
}

/// Whether the machines of a lab have room on this host.
pub fn check_memory(description: &Description) -> Result<()> {
    let machines = description.real_server.len() as u64 + 2;
    let needed = machines * (u64::from(description.memory_mib) + QEMU_MIB);
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line
        .and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
        .map(|kib| kib / 1024);
    match available {
        Some(available) if available < needed => Err(Error(format!(
            "{machines} machines need about {needed} MiB of memory, and {available} MiB are free: \
             end something, or take fewer (make vm-lab REAL_SERVERS=1)"
        ))),
        _ => Ok(()),
    }
}

/// Who has which cards and ports.
struct Planner<'a> {
    assets: &'a Assets,
    description: &'a Description,
    folder: &'a Path,
}

impl Planner<'_> {
    fn cables(&self, kind: DirectorKind) -> Vec<Cable> {
        let mut machines = vec!["client".to_owned(), "director".to_owned()];
        machines.extend((1..=self.description.real_server.len()).map(|n| format!("rs{n}")));
        let cable = |segment: &str, machine: &str| Cable {
            segment: segment.to_owned(),
            machine: machine.to_owned(),
            socket: self.socket(segment, machine),
            leads_to: (kind == DirectorKind::Host && segment == "front")
                .then(|| self.folder.join(HOST_FRONT)),
        };
        let mut cables: Vec<Cable> =
            machines.iter().map(|machine| cable("front", machine)).collect();
        if self.description.topology == Topology::TwoSegments {
            cables.extend(machines.iter().skip(1).map(|machine| cable("back", machine)));
        }
        cables
    }

    fn all(&self, kind: DirectorKind) -> Vec<Plan> {
        let mut plans = Vec::new();
        if kind != DirectorKind::Host {
            plans.push(self.director(kind));
        }
        for number in 1..=self.description.real_server.len() {
            plans.push(self.guest(&format!("rs{number}"), front_mac(number), back_mac(number)));
        }
        let mut client = self.guest("client", CLIENT_MAC.to_owned(), String::new());
        client.cards.truncate(1);
        plans.push(client);
        plans
    }

    fn director(&self, kind: DirectorKind) -> Plan {
        let mut plan = self.guest("director", director_card(0), director_card(1));
        if kind == DirectorKind::Vipr {
            let port = |name, file| HostPort {
                kind: PortKind::Listening(name),
                socket: self.folder.join(file),
            };
            plan.boot = Boot::Kernel {
                kernel: self.assets.kernel.clone(),
                initrd: self.assets.vipr.clone(),
                append: "vipr.config=port".to_owned(),
            };
            plan.ports = vec![
                port("vipr.config", "director.config"),
                port("vipr.control", "director.control"),
            ];
        }
        plan
    }

    fn guest(&self, name: &str, front: String, back: String) -> Plan {
        let mut cards = vec![(front, self.socket("front", name))];
        if self.description.topology == Topology::TwoSegments {
            cards.push((back, self.socket("back", name)));
        }
        let file = |extension: &str| self.folder.join(format!("{name}.{extension}"));
        let mut plan = Plan::new(name, self.description.memory_mib, guest_boot(self.assets));
        plan.cards = cards;
        plan.ports = vec![
            HostPort { kind: PortKind::Terminal, socket: file("shell") },
            HostPort { kind: PortKind::Connecting("lab.agent"), socket: file("agent") },
        ];
        plan
    }

    fn socket(&self, segment: &str, machine: &str) -> PathBuf {
        self.folder.join(format!("{segment}.{machine}"))
    }
}

fn guest_boot(assets: &Assets) -> Boot {
    Boot::Kernel {
        kernel: assets.kernel.clone(),
        initrd: assets.guest.clone(),
        append: String::new(),
    }
}

/// A machine that only says that it has started.
fn probe(assets: &Assets) -> Plan {
    Plan::new("probe", 128, guest_boot(assets))
}

/// KVM if it works here, else TCG; said once.
pub fn choose_accelerator(assets: &Assets) -> Result<Accelerator> {
    let folder = run_folder()?;
    let (accelerator, why) = machine::accelerator(&probe(assets), folder.path());
    println!(
        "machines run {}: {why}",
        match accelerator {
            Accelerator::Kvm => "with KVM",
            Accelerator::Tcg => "without hardware virtualisation (TCG), slower",
        }
    );
    Ok(accelerator)
}

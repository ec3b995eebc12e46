//! A lab for a person, and one for a test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher};

use super::assets::Assets;
use super::cluster::{Cluster, DirectorKind, check_memory, choose_accelerator};
use super::description::{
    CLIENT_ADDRESS, CLIENT_MAC, Description, Topology, back_mac, director_mac, front_address,
    front_mac,
};
use super::machine::{self, Accelerator};
use super::stop;
use super::stories::{STORIES, Story};
use super::visitor::{self, Registration, Visit};
use super::{config_disk, disk_image};
use crate::build::{Error, Result};

/// Between two looks at whether something has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a capture's reader may take; a slow one ends.
const CAPTURE_PATIENCE: Duration = Duration::from_millis(200);
/// How often a story is told before it counts as failed.
const ATTEMPTS: usize = 2;

/// What a lab is made from.
#[derive(Debug)]
pub struct Options {
    pub cache: PathBuf,
    pub description: PathBuf,
    pub vipr: PathBuf,
    pub real_servers: Option<usize>,
    pub one_arm: bool,
    /// The director is a process of this host.
    pub on_host: bool,
}

impl Options {
    fn kind(&self, story: &Story) -> Result<DirectorKind> {
        if self.on_host { story.kind_on_host() } else { Ok(story.kind) }
    }
}

/// Boots the lab, tells a story, and stays up until Ctrl-C.
pub fn run(options: &Options, story: &Story) -> Result<()> {
    stop::on_signals().map_err(|error| Error(format!("signals: {error}")))?;
    if visitor::running(&options.cache).is_ok() {
        return Err(Error::new(
            "a lab runs already: use it (make vm-lab-status), or end it with Ctrl-C",
        ));
    }
    let kind = options.kind(story)?;
    let description = describe(options, story)?;
    check_memory(&description)?;
    let (assets, accelerator) = prepare(options)?;
    title(&format!("The lab: {}", story.name));
    println!("    {}", story.lesson);
    picture(&description, kind);
    let start = Instant::now();
    let mut cluster = Cluster::boot(&assets, description, kind, accelerator)?;
    println!("    all machines are up after {:.1} s", start.elapsed().as_secs_f32());
    let registration = Registration::new(&options.cache, cluster.folder())?;
    title("The story");
    let told = story.tell(&mut cluster);
    if stop::is_asked() {
        return Ok(());
    }
    match told {
        Ok(()) => println!("\nAll as it should be."),
        Err(error) => println!("\n{}", cluster.explain(error)),
    }
    let result = if story.stays { stay(options, story, &mut cluster) } else { Ok(()) };
    println!("\nending the machines");
    drop(registration);
    drop(cluster);
    stop::forget_all();
    result
}

/// Something that is told, or tested, in a test.
enum Trial {
    Story(&'static Story),
    /// One that is told of no cluster: its name, its lesson, and what it is.
    Alone(&'static str, &'static str, fn(&Options, Accelerator) -> Result<()>),
}

const ALONE: [Trial; 2] = [
    Trial::Alone(disk_image::NAME, disk_image::LESSON, disk_image::check),
    Trial::Alone(config_disk::NAME, config_disk::LESSON, config_disk::check),
];

impl Trial {
    fn all() -> Vec<Trial> {
        STORIES.iter().map(Trial::Story).chain(ALONE).collect()
    }

    fn find(name: &str) -> Result<Trial> {
        let alone = ALONE.into_iter().find(|trial| trial.name() == name);
        alone.map_or_else(|| Story::find(name).map(Trial::Story), Ok)
    }

    fn name(&self) -> &'static str {
        match self {
            Trial::Story(story) => story.name,
            Trial::Alone(name, ..) => name,
        }
    }

    fn lesson(&self) -> &'static str {
        match self {
            Trial::Story(story) => story.lesson,
            Trial::Alone(_, lesson, _) => lesson,
        }
    }

    fn attempt(&self, options: &Options, assets: &Assets, accelerator: Accelerator) -> Result<()> {
        match self {
            Trial::Story(story) => attempt_story(options, assets, accelerator, story),
            Trial::Alone(.., check) => check(options, accelerator),
        }
    }
}

/// Tells every story, or those named, and says how each went.
pub fn test(options: &Options, names: &[String]) -> Result<()> {
    stop::on_signals().map_err(|error| Error(format!("signals: {error}")))?;
    let trials = match names {
        [] => Trial::all(),
        names => names.iter().map(|name| Trial::find(name)).collect::<Result<Vec<_>>>()?,
    };
    let (assets, accelerator) = prepare(options)?;
    let begin = Instant::now();
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for trial in &trials {
        let start = Instant::now();
        let mut line = String::new();
        for attempt in 1..=ATTEMPTS {
            title(&format!("{}: {}", trial.name(), trial.lesson()));
            let result = trial.attempt(options, &assets, accelerator);
            stop::check()?;
            let seconds = start.elapsed().as_secs_f32();
            match result {
                Ok(()) => {
                    line = format!("passed {seconds:6.1} s, attempt {attempt}");
                    break;
                }
                Err(error) => {
                    println!("    attempt {attempt} of {ATTEMPTS} failed: {error}");
                    line = format!("FAILED {seconds:6.1} s");
                }
            }
        }
        if line.starts_with("FAILED") {
            failed.push(trial.name());
        }
        println!("    {line}");
        lines.push(format!("{:<18} {line}", trial.name()));
    }
    println!("\n{}", lines.join("\n"));
    let passed = trials.len() - failed.len();
    println!("{passed} passed, {} failed, {} s", failed.len(), begin.elapsed().as_secs());
    if failed.is_empty() {
        Ok(())
    } else {
        let consoles = options.cache.join("failed");
        Err(Error(format!("failed: {}; consoles are in {}", failed.join(", "), consoles.display())))
    }
}

fn attempt_story(
    options: &Options,
    assets: &Assets,
    accelerator: Accelerator,
    story: &Story,
) -> Result<()> {
    let description = describe(options, story)?;
    check_memory(&description)?;
    let mut cluster = Cluster::boot(assets, description, options.kind(story)?, accelerator)?;
    let result = story.tell(&mut cluster).map_err(|error| cluster.explain(error));
    if result.is_err() {
        let _ = cluster.keep_consoles(&options.cache.join("failed").join(story.name));
    }
    drop(cluster);
    stop::forget_all();
    result
}

fn prepare(options: &Options) -> Result<(Assets, Accelerator)> {
    println!("{}", machine::version()?);
    let assets = Assets::build(&options.cache, &options.vipr)?;
    let accelerator = choose_accelerator(&assets)?;
    Ok((assets, accelerator))
}

fn describe(options: &Options, story: &Story) -> Result<Description> {
    let mut description = Description::read(&options.description)?;
    if let Some(count) = options.real_servers {
        description.set_real_servers(count).map_err(Error)?;
    }
    if options.one_arm {
        description.topology = Topology::OneArm;
    }
    story.prepare(&mut description);
    Ok(description)
}

/// Follows the description and serves visitors until somebody ends it.
fn stay(options: &Options, story: &Story, cluster: &mut Cluster) -> Result<()> {
    let (sender, visits) = mpsc::channel();
    visitor::listen(cluster.folder(), sender)?;
    let path = &options.description;
    let (changed, changes) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changed.send(());
        }
    })
    .map_err(|error| Error(format!("{}: {error}", path.display())))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    watcher
        .watch(folder.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)
        .map_err(|error| Error(format!("{}: {error}", path.display())))?;
    println!(
        "\nThe lab stays up. Edit {} and save it: it is in force at once.\n    \
         make vm-lab-shell VM=client      a shell in a machine: client, rs1, …\n    \
         make vm-lab-status               what the director knows\n    \
         make vm-lab-capture SEGMENT=front FILE=front.pcap\n    \
         Ctrl-C                           ends everything",
        path.display()
    );
    let mut seen = std::fs::read(path).ok();
    while !stop::is_asked() {
        if changes.recv_timeout(LOOK_INTERVAL).is_ok() {
            // An editor may need several steps.
            while changes.recv_timeout(LOOK_INTERVAL / 2).is_ok() {}
            let now = std::fs::read(path).ok();
            if now != seen {
                seen = now;
                follow(options, story, cluster);
            }
        }
        while let Ok(visit) = visits.try_recv() {
            receive(visit, cluster);
        }
    }
    Ok(())
}

fn follow(options: &Options, story: &Story, cluster: &mut Cluster) {
    println!("\n{} has changed:", options.description.display());
    match describe(options, story).and_then(|description| cluster.follow(description)) {
        Ok(news) if news.is_empty() => println!("    nothing that is in force while it runs"),
        Ok(news) => news.iter().for_each(|line| println!("    {line}")),
        Err(error) => println!("    {error}"),
    }
}

fn receive(visit: Visit, cluster: &mut Cluster) {
    match visit {
        Visit::Capture { segment, sink } => {
            let _ = sink.set_write_timeout(Some(CAPTURE_PATIENCE));
            cluster.hub.capture(&segment, Box::new(sink));
        }
        Visit::Status { mut sink } => {
            let _ = sink.write_all(status(cluster).as_bytes());
        }
    }
}

/// What the director knows, as a table.
fn status(cluster: &mut Cluster) -> String {
    if let Some(director) = &mut cluster.director {
        let said = director
            .start("ipvsadm -Ln --stats; ipvsadm -Lnc")
            .and_then(|job| job.finish(Duration::from_secs(10)));
        return said.map_or_else(|error| format!("{error}\n"), |lines| lines.join("\n") + "\n");
    }
    let Some(servers) = cluster.server_status() else {
        return "the director does not answer\n".to_owned();
    };
    let mut text = format!(
        "{:<6} {:<16} {:<18} {:>6} {:<10} {:>6} {:>8} {:>11}\n",
        "", "ADDRESS", "MAC", "WEIGHT", "STATE", "ACTIVE", "INACTIVE", "CONNECTIONS"
    );
    for server in servers {
        let word = |key: &str| server[key].as_str().unwrap_or("-").to_owned();
        let number = |key: &str| server[key].as_u64().unwrap_or_default();
        text += &format!(
            "{:<6} {:<16} {:<18} {:>6} {:<10} {:>6} {:>8} {:>11}\n",
            word("name"),
            word("address"),
            word("mac"),
            number("weight"),
            word("state"),
            number("active"),
            number("inactive"),
            number("connections"),
        );
    }
    let socket = cluster.folder().join("director.control");
    text + &format!("\nmore of it: vipr status --socket {}\n", socket.display())
}

fn picture(description: &Description, kind: DirectorKind) {
    let director = match kind {
        DirectorKind::Vipr => "vipr",
        DirectorKind::Host => "vipr on the host",
        DirectorKind::Ipvs => "ipvs",
    };
    match description.topology {
        Topology::TwoSegments => println!(
            "\n    client ─┬─ front ──► {director} ──► back ──► rs1 rs2 …     requests\n            \
             └──────◄─ front ─◄──────────────┘            replies\n"
        ),
        Topology::OneArm => println!(
            "\n    client ── front ──► {director} ──► front ──► rs1 rs2 …     requests\n            \
             └──◄─ front ─◄──────────────┘            replies\n"
        ),
    }
    println!("    client     {CLIENT_ADDRESS:<14} {CLIENT_MAC}");
    println!("    director   {:<14} {}   the VIP", description.service.vip, director_mac(0));
    for (server, number) in description.real_server.iter().zip(1..) {
        let mac = match description.topology {
            Topology::TwoSegments => back_mac(number),
            Topology::OneArm => front_mac(number),
        };
        println!(
            "    rs{number:<8} {:<14} {mac}   weight {}, VIP on lo, hidden by {:?}",
            description.rip(number),
            server.weight,
            server.hide
        );
        if description.topology == Topology::TwoSegments {
            println!("               {:<14} {}", front_address(number), front_mac(number));
        }
    }
}

fn title(text: &str) {
    println!("\n== {text}");
}

//! The file in its directory: written, taken up once, refused, kept.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::*;
use crate::config;
use crate::config::snapshot::{Endpoint, PortRange, Ports, Protocol};
use crate::director::state::{ConnectionRecord, RealServerRecord};
use crate::director::{Action, Limits};
use crate::wire::Frame;
use crate::wire::samples::{DIRECTOR_MAC, TCP_SYN};

const MAX_AGE: Duration = Duration::from_secs(120);
const NOW: Instant = Instant::from_nanos(5_000_000_000);

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_798_000_000)
}

fn director() -> Director {
    let text = format!(
        r#"
        [segment.lan]
        role = "both"
        tap = "tap-lan"
        mac = "{DIRECTOR_MAC}"
        [[service]]
        vip = "192.0.2.10"
        protocol = "tcp"
        ports = 80
        scheduler = "rr"
        real_server = [{{ name = "rs1", address = "10.0.0.11", mac = "52:54:00:00:00:11" }}]
        "#
    );
    let snapshot = config::parse(&text, "vipr.toml").unwrap_or_else(|error| panic!("{error}"));
    Director::new(NOW, Arc::new(snapshot), Limits::default(), 7)
}

/// A director with one connection.
fn busy() -> Director {
    let mut director = director();
    let segment = director.segments()[0].0;
    let mut bytes = TCP_SYN.to_vec();
    let verdict = director.handle_frame(NOW, segment, &mut Frame::plain(&mut bytes));
    assert!(matches!(verdict.action, Action::Forward { .. }), "{verdict:?}");
    director
}

struct Fixture {
    directory: TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        Fixture { directory, path }
    }

    fn leave(&self) -> Left {
        leave(&self.path, &busy(), NOW, wall()).unwrap()
    }

    /// A new director takes up what there is, this long after it was left.
    fn take_up(&self, later: Duration) -> Result<Option<TakenUp>, Refusal> {
        take_up(&self.path, MAX_AGE, &mut director(), NOW, wall() + later)
    }

    /// The names of the files there.
    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(&self.directory).unwrap();
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn what_is_left_is_taken_up_once() {
    let fixture = Fixture::new();
    let left = fixture.leave();
    let metadata = fs::metadata(&fixture.path).unwrap();
    assert_eq!(left, Left { connections: 1, templates: 0, bytes: metadata.len() });
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(fixture.files(), ["state"]);
    let taken_up = fixture.take_up(Duration::from_millis(2500)).unwrap().unwrap();
    assert_eq!(taken_up.imported, Imported { connections: 1, ..Imported::default() });
    assert_eq!(taken_up.down, Duration::from_millis(2500));
    assert_eq!(
        taken_up.to_string(),
        "taken up after 2.5 s: connections 1, persistence templates 0, weights set by hand 0, \
         MACs 0"
    );
    assert_eq!(fixture.files(), [""; 0]);
    assert!(fixture.take_up(Duration::ZERO).unwrap().is_none());
}

#[test]
fn what_is_there_already_is_replaced_and_leftovers_are_no_obstacle() {
    let fixture = Fixture::new();
    leave(&fixture.path, &director(), NOW, wall()).unwrap();
    for leftover in ["state.new", "state.taken"] {
        fs::write(fixture.directory.path().join(leftover), "half").unwrap();
    }
    fixture.leave();
    assert_eq!(fixture.files(), ["state", "state.taken"]);
    assert_eq!(fixture.take_up(Duration::ZERO).unwrap().unwrap().imported.connections, 1);
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn a_file_that_is_refused_is_kept_and_never_tried_again() {
    type Spoil = fn(&Path);
    let append: Spoil = |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, [bytes.as_slice(), b"!"].concat()).unwrap();
    };
    let damage: Spoil = |path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let enlarge: Spoil = |path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(format::FILE_LEN_MAX + 1).unwrap();
    };
    let rows: [(Spoil, u64, &str); 8] = [
        (append, 0, "it is damaged: "),
        (damage, 0, "it is damaged: its checksum is wrong"),
        (enlarge, 0, "it is larger than 1024 MiB"),
        (|path| fs::write(path, "").unwrap(), 0, "it is no state file of vipr"),
        (|path| fs::write(path, "[router]\n").unwrap(), 0, "it is no state file of vipr"),
        (
            |path| fs::write(path, b"vipr st\n\x01\0\0\0rest of it: 24 bytes more").unwrap(),
            0,
            "it has format 1, and this vipr reads format 2",
        ),
        (|_| (), 121, "it was left 2m1s ago, and state_max_age is 2m"),
        (|_| (), u64::MAX, "it was left 2m1s from now: the clock was wrong then, or is now"),
    ];
    for (spoil, later, reason) in rows {
        let fixture = Fixture::new();
        fixture.leave();
        spoil(&fixture.path);
        let content = fs::metadata(&fixture.path).unwrap().len();
        let mut director = director();
        let wall = match later {
            u64::MAX => wall() - Duration::from_secs(121),
            later => wall() + Duration::from_secs(later),
        };
        let refusal = take_up(&fixture.path, MAX_AGE, &mut director, NOW, wall).unwrap_err();
        let line = refusal.to_string();
        assert!(line.starts_with(&format!("refused, because {reason}")), "{line}");
        assert!(line.contains("state.refused; starting without connections"), "{line}");
        assert_eq!(refusal.is_ordinary(), later == 121);
        assert_eq!(fixture.files(), ["state.refused"], "{line}");
        assert_eq!(
            fs::metadata(fixture.directory.path().join("state.refused")).unwrap().len(),
            content
        );
        assert!(fixture.take_up(Duration::ZERO).unwrap().is_none(), "{line}");
        let nothing = director.export(NOW, |record| match record {
            Record::Connection(_) => Err(()),
            Record::RealServer(_) | Record::Neighbor(_) => Ok(()),
        });
        assert_eq!(nothing, Ok(()), "{line}");
        // And it stays when the next one is taken up.
        fixture.leave();
        assert!(fixture.take_up(Duration::ZERO).unwrap().is_some());
        assert_eq!(fixture.files(), ["state.refused"], "{line}");
    }
}

#[test]
fn the_limits_of_age_are_those_that_are_configured() {
    for (later, taken) in [(0, true), (119, true), (120, true), (121, false)] {
        let fixture = Fixture::new();
        fixture.leave();
        assert_eq!(fixture.take_up(Duration::from_secs(later)).is_ok(), taken, "{later} s");
    }
    // A clock that was set back since.
    for (back, taken) in [(1, true), (120, true), (121, false)] {
        let fixture = Fixture::new();
        fixture.leave();
        let wall = wall() - Duration::from_secs(back);
        let found = take_up(&fixture.path, MAX_AGE, &mut director(), NOW, wall);
        assert_eq!(found.is_ok(), taken, "{back} s");
        assert!(found.ok().flatten().is_none_or(|found| found.down.is_zero()));
    }
}

#[test]
fn a_place_that_cannot_be_written_is_known_beforehand() {
    let fixture = Fixture::new();
    let at = |name: &str| fixture.directory.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("directory")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for (name, expected) in [
        ("missing/state", "make its directory"),
        ("file/state", "name a file in a directory that can be written"),
        ("directory", "move that out of the way, or name another file"),
        ("fifo", "move that out of the way, or name another file"),
    ] {
        let error = check(&at(name)).unwrap_err();
        assert_eq!(remedy(&error), expected, "{name}");
        let found = take_up(&at(name), MAX_AGE, &mut director(), NOW, wall());
        match name {
            "missing/state" => assert!(matches!(found, Ok(None)), "{found:?}"),
            _ => assert!(matches!(found, Err(Refusal::Unreadable(_))), "{name}: {found:?}"),
        }
    }
    assert!(leave(&at("missing/state"), &busy(), NOW, wall()).is_err());
    assert!(leave(&at("directory"), &busy(), NOW, wall()).is_err());
    check(&fixture.path).unwrap();
    assert_eq!(fixture.files(), ["directory", "fifo", "file"], "nothing is left of it");
}

/// How long it takes, and how much room, is printed with `--nocapture`; to be run with `--release`.
#[test]
fn a_million_connections_are_left_and_taken_up() {
    const MANY: u32 = 1 << 20;
    let fixture = Fixture::new();
    let mut full = director();
    let mut import = full.import(NOW, Duration::ZERO);
    import.take(Record::RealServer(RealServerRecord {
        listen: vec![Endpoint {
            vip: [192, 0, 2, 10].into(),
            protocol: Protocol::Tcp,
            ports: Ports::Some(vec![PortRange { first: 80, last: 80 }]),
        }],
        address: [10, 0, 0, 11].into(),
        segment: "lan".to_owned(),
        weight_override: None,
    }));
    for number in 0..MANY {
        import.take(Record::Connection(ConnectionRecord {
            real_server: 0,
            endpoint: 0,
            client: (0x0a00_0000 + number / 16).to_be_bytes().into(),
            client_port: 32_768 + (number % 16) as u16,
            virtual_port: 80,
            state: ConnectionState::Established,
            proven: true,
            remaining_ms: 900_000 - u64::from(number % 800_000),
            template: None,
        }));
    }
    assert_eq!(import.finish().connections, MANY);

    let clock = std::time::Instant::now();
    let left = leave(&fixture.path, &full, NOW, wall()).unwrap();
    println!("left in {:?}: {left}", clock.elapsed());
    assert_eq!(left.connections, u64::from(MANY));
    assert!(left.bytes < 20 * u64::from(MANY), "{} bytes", left.bytes);
    drop(full);

    let mut next = director();
    let clock = std::time::Instant::now();
    let taken_up = take_up(&fixture.path, MAX_AGE, &mut next, NOW, wall()).unwrap().unwrap();
    println!("taken up in {:?}: {taken_up}", clock.elapsed());
    assert_eq!(taken_up.imported, Imported { connections: MANY, ..Imported::default() });
}

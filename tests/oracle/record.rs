//! What became of a trace, as text: a line of characters for the packets up to a check-point,
//! one each (the real server's, or `-` if none got it), and a line for the check-point.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::scenarios::Scenario;
use super::trace::{Op, fingerprint, hash, trace};

const NOBODY: char = '-';
/// The first real server's character; the others' follow.
const FIRST: u8 = b'0';

#[derive(Clone, Debug)]
pub struct Record {
    /// The version of the kernel.
    pub kernel: String,
    parts: Vec<Part>,
}

/// Up to a check-point.
#[derive(Clone, Debug, Default)]
struct Part {
    choices: String,
    check: String,
}

/// A service's tables at a check-point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Active and inactive connections by VIP and real server.
    pub counts: BTreeMap<(u8, u8), (u32, u32)>,
    /// `client:port vip real_server state` of connections to real servers there are.
    pub connections: Vec<String>,
}

impl Check {
    /// In a line: the counts, how many connections there are in each state, and a number that
    /// is another one if any of them is.
    fn line(&self) -> String {
        let mut line = String::from("=");
        for ((vip, server), (active, inactive)) in &self.counts {
            let _ = write!(line, " {vip}.{server}:{active}/{inactive}");
        }
        let mut states: BTreeMap<&str, usize> = BTreeMap::new();
        let mut connections = self.connections.clone();
        connections.sort_unstable();
        for connection in &connections {
            let state = connection.rsplit(' ').next().unwrap_or("?");
            *states.entry(state).or_default() += 1;
        }
        for (state, count) in states {
            let _ = write!(line, " {state}={count}");
        }
        let _ = write!(line, " {:016x}", hash(connections.join("\n").as_bytes()));
        line
    }
}

impl Record {
    pub fn new(kernel: String) -> Record {
        Record { kernel, parts: vec![Part::default()] }
    }

    pub fn push(&mut self, server: Option<u8>) {
        let choice = server.map_or(NOBODY, |server| char::from(FIRST + server));
        self.parts.last_mut().expect("there is always one").choices.push(choice);
    }

    pub fn check(&mut self, check: &Check) {
        self.parts.last_mut().expect("there is always one").check = check.line();
        self.parts.push(Part::default());
    }

    pub fn packets(&self) -> usize {
        self.parts.iter().map(|part| part.choices.len()).sum()
    }

    pub fn checks(&self) -> usize {
        self.parts.iter().filter(|part| !part.check.is_empty()).count()
    }

    /// Where two records of a trace differ.
    pub fn differences(&self, other: &Record) -> Vec<String> {
        let mut found = Vec::new();
        assert_eq!(self.packets(), other.packets(), "records of one trace");
        assert_eq!(self.checks(), other.checks(), "records of one trace");
        let mut packet = 0;
        for (part, others) in self.parts.iter().zip(&other.parts) {
            for (one, another) in part.choices.chars().zip(others.choices.chars()) {
                packet += 1;
                if one != another {
                    found.push(format!("packet {packet}: vipr {one}, kernel {another}"));
                }
            }
            if part.check != others.check {
                found.push(format!(
                    "after packet {packet}:\n        vipr   {}\n        kernel {}",
                    part.check, others.check
                ));
            }
        }
        found
    }

    pub fn write(&self, directory: &Path, scenario: &Scenario) {
        let ops = trace(scenario);
        let mut text = format!("trace {:016x}\nkernel {}\n", fingerprint(&ops), self.kernel);
        // The last one has nothing yet; one between two check-points has no packets.
        let is_there = |part: &&Part| !part.choices.is_empty() || !part.check.is_empty();
        for part in self.parts.iter().filter(is_there) {
            let _ = writeln!(text, "{}\n{}", part.choices, part.check);
        }
        let path = directory.join(scenario.name).with_extension("txt");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The record of a scenario, which must be of its trace.
    pub fn read(directory: &Path, scenario: &Scenario) -> Record {
        let path = directory.join(scenario.name).with_extension("txt");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: make oracle RECORD=1", path.display()));
        let mut lines = text.lines();
        let ops = trace(scenario);
        let expected = format!("trace {:016x}", fingerprint(&ops));
        let name = path.display();
        assert_eq!(lines.next(), Some(&*expected), "{name}: another trace: make oracle RECORD=1");
        let kernel = lines.next().and_then(|line| line.strip_prefix("kernel ")).expect("a kernel");
        let mut record = Record::new(kernel.to_owned());
        record.parts.clear();
        while let (Some(choices), Some(check)) = (lines.next(), lines.next()) {
            record.parts.push(Part { choices: choices.to_owned(), check: check.to_owned() });
        }
        let packets = ops.iter().filter(|op| matches!(op, Op::Packet(_))).count();
        assert_eq!(record.packets(), packets, "{name} is cut short");
        record
    }

    pub fn spoil_a_choice(&mut self) {
        let choices = &mut self.parts[1].choices;
        let other = if choices.ends_with('0') { "1" } else { "0" };
        choices.replace_range(choices.len() - 1.., other);
    }

    pub fn spoil_a_check(&mut self) {
        self.parts[1].check.push('0');
    }
}

//! Side by side: what vipr costs beside the least program that could do its work, as one table of
//! what was promised and what was measured.
//!
//! Each group of rows is one run of contenders that take turns ([`support`]); each figure is the
//! median over the rounds, with the quartiles. It all happens in a network namespace of its own.
//! Figures are of the forwarder's processor time unless they say otherwise: it is steadier than
//! elapsed time on a machine that does other things as well.
//!
//! `cargo bench --bench forwarding`; words after `--` select groups by name. Without `--bench` all
//! is done once and small, as a test of itself.

mod rows;
mod support;

use std::env;
use std::process::ExitCode;

use support::place::{self, Cores};
use support::table::{self, Row};
use support::{BENCHMARK, Scale, TEST};

/// A group of rows: its name, and the run that fills it.
type Group = (&'static str, fn(Scale, Cores) -> Vec<Row>);

/// In this order: the first of them looks at the memory of a process that has done nothing yet.
const GROUPS: [Group; 9] = [
    ("memory", rows::memory::run),
    ("many", rows::forwarding::many),
    ("few", rows::forwarding::few),
    ("bridges", rows::forwarding::bridges),
    ("bursts", rows::forwarding::bursts),
    ("latency", rows::latency::run),
    ("opening", rows::forwarding::opening),
    ("growth", rows::growth::run),
    ("attach", rows::attach::run),
];

fn main() -> ExitCode {
    let scale = if env::args().any(|word| word == "--bench") { BENCHMARK } else { TEST };
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(code) = place::enter_namespace() {
        return code;
    }
    let cores = Cores::find();
    table::print_header();
    for (name, run) in GROUPS {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            table::print(&run(scale, cores));
        }
    }
    ExitCode::SUCCESS
}

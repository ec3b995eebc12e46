//! vipr against the kernel's IPVS: the same frames, the same changes, the same choices?
//!
//! A [`trace`] is made from a seed. In a guest with the kernel's `ip_vs`, [`kernel`] offers it by
//! TAP devices and takes down what became of each packet ([`record`]); [`replay`] offers the same
//! to vipr's core. `make oracle` does both anew and prints a table. The records in
//! `tests/data/oracle` are of such a run: without a guest, vipr is held against those.
//!
//! What is compared: for each packet the real server it was sent to, or none; at check-points
//! each connection with its state and real server, and each real server's active and inactive
//! connections. Where the two differ on purpose is in `vm/oracle/README.md`.

#[path = "../harness/mod.rs"]
mod harness;

mod kernel;
mod record;
mod replay;
mod scenarios;
mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use record::Record;

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle")
}

/// The scenarios of a run of `make oracle`: those that `ORACLE_ONLY` names, or all.
fn of_this_run() -> Vec<scenarios::Scenario> {
    let only = std::env::var("ORACLE_ONLY").unwrap_or_default();
    let names: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    let mut all = scenarios::all();
    for name in &names {
        assert!(all.iter().any(|known| known.name == *name), "{name}: no such scenario");
    }
    all.retain(|scenario| names.is_empty() || names.contains(&scenario.name));
    all
}

/// Where a run of `make oracle` leaves its records.
fn run_directory() -> PathBuf {
    std::env::var_os("ORACLE_RUN")
        .expect("ORACLE_RUN names a directory: see vm/oracle/run.sh")
        .into()
}

#[test]
fn vipr_chooses_what_the_kernel_chose() {
    let mut wrong = Vec::new();
    for scenario in scenarios::all() {
        let record = Record::read(&recorded(), &scenario);
        let differences = replay::compare(&scenario, &record);
        if let Some(first) = differences.first() {
            wrong.push(format!("{}: {} differences: {first}", scenario.name, differences.len()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_record_is_of_a_scenario_and_all_are_small() {
    let mut size = 0;
    for entry in fs::read_dir(recorded()).expect("tests/data/oracle") {
        let entry = entry.expect("an entry");
        size += entry.metadata().expect("a file").len();
        let name = entry.file_name().into_string().expect("plain names");
        let known =
            scenarios::all().iter().any(|scenario| format!("{}.txt", scenario.name) == name);
        assert!(known, "{name}: no such scenario");
    }
    assert!(size < 1 << 20, "{size} bytes");
}

/// A record that says something else is not taken for the same.
#[test]
fn a_difference_is_seen() {
    let scenario = scenarios::all().into_iter().find(|scenario| scenario.name == "wrr").unwrap();
    let mut record = Record::read(&recorded(), &scenario);
    assert!(replay::compare(&scenario, &record).is_empty());
    record.spoil_a_choice();
    assert_eq!(replay::compare(&scenario, &record).len(), 1);
    let mut record = Record::read(&recorded(), &scenario);
    record.spoil_a_check();
    assert_eq!(replay::compare(&scenario, &record).len(), 1);
}

#[test]
#[ignore = "in a guest that has ip_vs only: see vm/oracle/run.sh"]
fn in_the_guest() {
    let Some(name) = std::env::var_os("ORACLE_SCENARIO") else { return kernel::run_each() };
    let scenario = scenarios::all().into_iter().find(|scenario| name == scenario.name);
    let scenario = scenario.expect("ORACLE_SCENARIO is a scenario");
    kernel::record(&scenario).write(&run_directory(), &scenario);
}

#[test]
#[ignore = "after in_the_guest only: see vm/oracle/run.sh"]
fn print_the_table() {
    let mut totals: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    println!("{:<22} {:>8} {:>8} {:>12}", "scenario", "packets", "checks", "differences");
    let (scenarios, all) = (of_this_run(), scenarios::all());
    for scenario in &scenarios {
        let record = Record::read(&run_directory(), scenario);
        let found = replay::compare(scenario, &record);
        let checks = record.checks();
        println!("{:<22} {:>8} {checks:>8} {:>12}", scenario.name, record.packets(), found.len());
        for difference in found.iter().take(3) {
            println!("    {difference}");
        }
        let total = totals.entry(scenario.scheduler).or_default();
        *total = (total.0 + record.packets(), total.1 + found.len());
    }
    println!("\n{:<22} {:>8} {:>21}", "scheduler", "packets", "differences");
    for (scheduler, (packets, differences)) in &totals {
        println!("{scheduler:<22} {packets:>8} {differences:>21}");
        let is_enough = *packets >= 10_000 || scenarios.len() < all.len();
        assert!(is_enough, "{scheduler}: too few packets");
    }
    println!("twos: not in this kernel; it draws lots, so only its shares can be compared");
    let differences: usize = totals.values().map(|(_, differences)| differences).sum();
    assert_eq!(differences, 0, "vipr and the kernel differ");
}

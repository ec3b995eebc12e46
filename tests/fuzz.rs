//! The fuzz targets on stable Rust: inputs that once found something, and a set number of random
//! ones, the same on every machine. `make fuzz` looks for new ones, for long and by coverage.

#[path = "fuzzing/samples.rs"]
mod samples;
#[path = "fuzzing/targets.rs"]
mod targets;

mod harness;
#[allow(dead_code, reason = "the simulation uses all of it")]
#[path = "simulation/random.rs"]
mod random;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use random::Random;

/// Random inputs a target; `VIPR_FUZZ_INPUTS` says otherwise.
const INPUTS: u64 = 2000;

fn run(name: &str, make: impl Fn(&mut Random) -> Vec<u8>) {
    let (_, target) = targets::TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    for input in found_before(name) {
        target(&input);
    }
    let inputs = std::env::var("VIPR_FUZZ_INPUTS").ok().map(|n| n.parse().expect("a number"));
    for seed in 0..inputs.unwrap_or(INPUTS) {
        let input = make(&mut Random::new(seed));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            let text: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("target {name}, seed {seed}, input {text}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Inputs that `cargo fuzz` found, kept in `tests/data/fuzz/TARGET/`.
fn found_before(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let read = |entry: std::io::Result<fs::DirEntry>| fs::read(entry.unwrap().path()).unwrap();
    entries.map(read).collect()
}

fn random_bytes(random: &mut Random, len_max: u64) -> Vec<u8> {
    (0..random.below(len_max)).map(|_| random.next() as u8).collect()
}

#[test]
fn single_frames_hold_no_surprise() {
    let samples = samples::all();
    run("frame", |random| {
        let mut frame = samples[random.below(samples.len() as u64) as usize].clone();
        for _ in 0..random.below(4) {
            let at = random.below(frame.len().max(1) as u64) as usize;
            match random.below(8) {
                0 => frame.truncate(at),
                1 => frame.extend(random_bytes(random, 64)),
                _ => frame.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
            }
        }
        frame
    });
}

#[test]
fn sequences_of_frames_hold_no_surprise() {
    run("frames", |random| random_bytes(random, 400));
}

#[test]
fn configurations_hold_no_surprise() {
    let samples = samples::configurations();
    run("configuration", |random| {
        let mut text = samples[random.below(samples.len() as u64) as usize].clone().into_bytes();
        for _ in 0..random.below(6) {
            let at = random.below(text.len() as u64) as usize;
            let from = random.below(text.len() as u64) as usize;
            match random.below(4) {
                0 => text[at] = random.next() as u8,
                1 => text[at] = text[from],
                2 => drop(text.drain(at..(at + random.below(20) as usize).min(text.len()))),
                _ => {
                    let piece = text[from..(from + 30).min(text.len())].to_vec();
                    text.splice(at..at, piece);
                }
            }
        }
        text
    });
}

/// What `make fuzz` starts from: without, it would take hours to find its way past a MAC address.
#[test]
#[ignore = "for make fuzz only: writes into fuzz/corpus"]
fn write_seeds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let configurations = samples::configurations().into_iter().map(String::into_bytes);
    // Of stories: each frame once, from the first segment; time; another configuration.
    let stories = (0..=u8::MAX).map(|sample| vec![0, 0, sample, 0, 200, 12, 230, 2, 0, 0, sample]);
    let seeds: [(&str, Vec<Vec<u8>>); 3] = [
        ("frame", samples::all()),
        ("frames", stories.take(samples::all().len()).collect()),
        ("configuration", configurations.collect()),
    ];
    for (target, inputs) in seeds {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).unwrap();
        for (number, input) in inputs.into_iter().chain(found_before(target)).enumerate() {
            fs::write(folder.join(format!("seed-{number}")), input).unwrap();
        }
    }
}

#[test]
fn every_target_is_one_for_cargo_fuzz() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let manifest = fs::read_to_string(folder.join("../Cargo.toml")).unwrap();
    for (name, _) in targets::TARGETS {
        assert!(folder.join(format!("{name}.rs")).exists(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

//! The targets, shared with `tests/fuzz.rs`.

#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "../tests/fuzzing/samples.rs"]
mod samples;
#[path = "../tests/fuzzing/targets.rs"]
pub mod targets;

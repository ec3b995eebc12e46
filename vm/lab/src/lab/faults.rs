//! What can be wrong with a segment.

use std::time::Duration;

use serde::Deserialize;

/// The faults of one segment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// The share of frames that is lost, 0 to 1.
    pub loss: f64,
    /// The share of frames that comes twice.
    pub duplicate: f64,
    /// How much later each frame comes.
    pub delay_ms: u64,
    /// Machines whose cable is out.
    pub cut: Vec<String>,
}

impl Faults {
    pub fn is_cut(&self, machine: &str) -> bool {
        self.cut.iter().any(|name| name == machine)
    }

    pub fn delay(&self) -> Option<Duration> {
        (self.delay_ms > 0).then(|| Duration::from_millis(self.delay_ms))
    }

    /// What is wrong with the numbers, if anything.
    pub fn mistake(&self) -> Option<String> {
        let share = |name: &str, value: f64| {
            (!(0.0..=1.0).contains(&value))
                .then(|| format!("{name} = {value}: expected a share from 0 to 1"))
        };
        share("loss", self.loss).or_else(|| share("duplicate", self.duplicate)).or_else(|| {
            (self.delay_ms > 10_000).then(|| "delay_ms: expected at most 10000".to_owned())
        })
    }
}

//! Contenders taking turns: the same work for each, in the same run, so that whatever else the
//! machine does meets all of them.
//!
//! In a turn the sender first puts the frames into the queue, from a core of its own, and rests;
//! then the contender deals with them, and that is timed. If both ran at once, the figures would
//! tell how two cores fight over a ring. Bursts shorter than a turn are sent by the forwarder's
//! own core, one after the other, each timed by itself.
//!
//! A ratio is that of two turns in the same round. Every frame that is to be forwarded must arrive
//! at the exit: that much is asserted, no time ever is.

use std::time::{Duration, Instant};

use super::contender::Contender;
use super::frames::Workload;
use super::place::{self, Cores};
use super::sender::{Outgoing, Sender};

/// Frames of a turn: whole bursts that fit the queue of a TAP that vipr made (4000).
pub const TURN_FRAMES: u64 = 62 * 64;
/// Frames of a turn where each burst is timed by itself.
const SHORT_TURN_FRAMES: u64 = 16 * 64;

/// Frames of a turn that are not ours, at most.
const STRAY_FRAMES_MAX: u64 = 16;

/// A contender, what is sent to it, and where.
pub struct Lane {
    /// Index of the contender.
    pub contender: usize,
    pub workload: Workload,
    /// Interface to send through.
    pub entrance: String,
    /// Interface that receives what was forwarded.
    pub exit: String,
}

/// One turn.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds a frame that the forwarder took: of its processor time, or of all time where
    /// bursts are timed one by one.
    pub cpu: f64,
    /// Nanoseconds a frame that sending took: where there is no queue in front of the forwarder,
    /// part of the path is the sender's work.
    pub send: f64,
}

/// The samples of one lane, a round each.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub samples: Vec<Sample>,
}

impl Series {
    /// How many times the frames of `floor` this one passes in the same time.
    pub fn speed_against(&self, floor: &Series) -> Spread {
        self.against(floor, |this, floor| floor.cpu / this.cpu)
    }

    /// How many times the time of `floor` a frame takes.
    pub fn cost_against(&self, floor: &Series) -> Spread {
        self.against(floor, |this, floor| this.cpu / floor.cpu)
    }

    /// The same as [`Self::speed_against`] with the sender's part of the path included.
    pub fn path_speed_against(&self, floor: &Series) -> Spread {
        self.against(floor, |this, floor| (floor.cpu + floor.send) / (this.cpu + this.send))
    }

    fn against(&self, floor: &Series, ratio: impl Fn(&Sample, &Sample) -> f64) -> Spread {
        let rounds = self.samples.iter().zip(&floor.samples);
        Spread::of(rounds.map(|(this, floor)| ratio(this, floor)))
    }

    /// Nanoseconds a frame.
    pub fn cpu(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.cpu))
    }
}

/// Lanes that take turns.
pub struct Session<'a> {
    pub cores: Cores,
    pub contenders: Vec<Box<dyn Contender + 'a>>,
    pub lanes: Vec<Lane>,
}

impl Session<'_> {
    /// So many rounds, a turn of each lane in each, after one that warms everything up.
    pub fn run(&mut self, rounds: usize) -> Vec<Series> {
        let sender = Sender::start(self.cores.sender);
        place::pin(self.cores.forwarder);
        let mut here = Outgoing::default();
        let mut results: Vec<Series> = self.lanes.iter().map(|lane| self.series(lane)).collect();
        for round in 0..=rounds {
            for turn in 0..self.lanes.len() {
                // Whoever goes first in one round goes last in another.
                let lane = (turn + round) % self.lanes.len();
                let sample = self.turn(lane, &sender, &mut here);
                if round > 0 {
                    results[lane].samples.push(sample);
                }
            }
        }
        results
    }

    /// For each lane how long each of so many frames was under way, sent one at a time, each when
    /// the one before had arrived.
    pub fn ping_pong(&mut self, rounds: usize, frames: u64) -> Vec<Vec<Duration>> {
        let sender = Sender::start(self.cores.sender);
        place::pin(self.cores.forwarder);
        let mut results: Vec<Vec<Duration>> = vec![Vec::new(); self.lanes.len()];
        for round in 0..=rounds {
            for (lane, times) in self.lanes.iter().zip(&mut results) {
                let contender = &mut self.contenders[lane.contender];
                contender.prepare();
                sender.ping_pong(&lane.entrance, &lane.exit, lane.workload, frames);
                contender.forward(frames);
                let taken = sender.finish();
                contender.finish();
                if round > 0 {
                    times.extend(taken);
                }
            }
        }
        results
    }

    fn series(&self, lane: &Lane) -> Series {
        Series { name: self.contenders[lane.contender].name(), samples: Vec::new() }
    }

    fn turn(&mut self, lane: usize, sender: &Sender, here: &mut Outgoing) -> Sample {
        let Lane { contender, workload, ref entrance, ref exit } = self.lanes[lane];
        let contender = &mut self.contenders[contender];
        contender.prepare();
        let before = place::received(exit);
        let is_whole = workload.burst >= TURN_FRAMES;
        let frames = if is_whole { TURN_FRAMES } else { SHORT_TURN_FRAMES };
        let (forwarding, sending) = if is_whole {
            let start = Instant::now();
            sender.fill(entrance, workload, frames);
            let sending = start.elapsed();
            let start = place::thread_time();
            contender.forward(frames);
            (place::thread_time() - start, sending)
        } else {
            let (mut elapsed, mut sending) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..frames / workload.burst {
                let start = Instant::now();
                here.fill(entrance, workload, workload.burst);
                let filled = Instant::now();
                contender.forward(workload.burst);
                elapsed += filled.elapsed();
                sending += filled - start;
            }
            (elapsed, sending)
        };
        contender.finish();
        if workload.is_forwarded() {
            let arrived = wait_for(exit, before + frames) - before;
            // The host may have had a word to say as well.
            assert!(
                (frames..frames + STRAY_FRAMES_MAX).contains(&arrived),
                "{}: {arrived} of {frames} frames arrived",
                contender.name()
            );
        }
        let per_frame = |time: Duration| time.as_nanos() as f64 / frames as f64;
        Sample { cpu: per_frame(forwarding), send: per_frame(sending) }
    }
}

/// What an interface has received, once that is so much or has been less for long.
fn wait_for(interface: &str, frames: u64) -> u64 {
    let start = Instant::now();
    loop {
        let received = place::received(interface);
        if received >= frames || start.elapsed() > Duration::from_millis(500) {
            return received;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The median of some values, and the quartiles around it.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        Spread { median: at(2), low: at(1), high: at(3) }
    }

    /// One value, measured once.
    pub fn exactly(value: f64) -> Spread {
        Spread { median: value, low: value, high: value }
    }
}

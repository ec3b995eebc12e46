//! How long a frame is under way when it comes alone: from the moment it is sent until it has
//! arrived, the forwarder being asleep at first.

use std::time::Duration;

use crate::support::Scale;
use crate::support::contender::{Contender, CopyLoop};
use crate::support::frames::{Kind, Workload};
use crate::support::place::Cores;
use crate::support::router::{Router, Setup};
use crate::support::session::{Lane, Session, Spread};
use crate::support::table::{Bound, Row};
use crate::support::taps::Taps;

/// Frames of a turn.
const FRAMES: u64 = 200;

pub fn run(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::direct("vb-late");
    let contenders: Vec<Box<dyn Contender>> = vec![
        CopyLoop::over(&taps),
        Router::ready(&Setup::with_connections(scale.few), taps.clone()),
    ];
    let kind = Kind::Established { connections: scale.few, services: 1 };
    let lanes = [0, 1].map(|contender| Lane {
        contender,
        workload: Workload::of(kind, 64),
        entrance: taps.entrance.clone(),
        exit: taps.exit.clone(),
    });
    let mut session = Session { cores, contenders, lanes: lanes.into() };
    let times = session.ping_pong(scale.rounds, FRAMES);
    [(50, 1.6), (99, 2.0)]
        .into_iter()
        .map(|(percent, must)| {
            let [copy, vipr] = [0, 1].map(|lane| percentiles(&times[lane], percent));
            let ratios = Spread::of(copy.iter().zip(&vipr).map(|(copy, vipr)| vipr / copy));
            let [copy, vipr] = [copy, vipr].map(|all| Spread::of(all.into_iter()).median);
            Row {
                what: format!("latency of a lone frame beside the copy loop, p{percent}"),
                must: Bound::AtMost(must),
                aim: Bound::AtMost(1.4),
                measured: ratios,
                note: format!("µs: copy loop {copy:.1}, vipr {vipr:.1}"),
            }
        })
        .collect()
}

/// A percentile of each turn, in µs.
fn percentiles(times: &[Duration], percent: usize) -> Vec<f64> {
    let of_turn = |turn: &[Duration]| {
        let mut sorted = turn.to_vec();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * percent / 100].as_nanos() as f64 / 1e3
    };
    times.chunks(FRAMES as usize).map(of_turn).collect()
}

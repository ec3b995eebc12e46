//! vipr on TAPs beside the copy loop.

use crate::support::Scale;
use crate::support::contender::{Contender, CopyLoop, PortsOnly};
use crate::support::frames::{Kind, Workload};
use crate::support::place::Cores;
use crate::support::router::{Router, Setup};
use crate::support::session::{Lane, Session};
use crate::support::table::{Bound, Row, nanos};
use crate::support::taps::Taps;

const fn established(connections: u32) -> Kind {
    Kind::Established { connections, services: 1 }
}

/// A session of contenders over one pair of TAPs, a lane for each pair of contender and workload.
fn session<'a>(
    cores: Cores,
    taps: &Taps,
    contenders: Vec<Box<dyn Contender + 'a>>,
    workloads: &[(usize, Workload)],
) -> Session<'a> {
    let lanes = workloads.iter().map(|&(contender, workload)| Lane {
        contender,
        workload,
        entrance: taps.entrance.clone(),
        exit: taps.exit.clone(),
    });
    Session { cores, contenders, lanes: lanes.collect() }
}

/// A large table, every connection hit at random.
pub fn many(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::direct("vb-many");
    let contenders: Vec<Box<dyn Contender>> = vec![
        CopyLoop::over(&taps),
        PortsOnly::over(&taps),
        Router::ready(&Setup::with_connections(scale.many), taps.clone()),
    ];
    let work = |contender, len| (contender, Workload::of(established(scale.many), len));
    let lanes = [work(0, 64), work(1, 64), work(2, 64), work(0, 1500), work(2, 1500)];
    let series = session(cores, &taps, contenders, &lanes).run(scale.rounds);
    let [copy, ports, vipr, copy_long, vipr_long] = &series[..] else { unreachable!() };
    vec![
        Row {
            what: format!("plain TAP, {} random connections, 64 B, of the copy loop", scale.many),
            must: Bound::AtLeast(0.95),
            aim: Bound::AtLeast(1.03),
            measured: vipr.speed_against(copy),
            note: nanos(&[copy, ports, vipr]),
        },
        Row::told(
            "the same, 1500 B",
            vipr_long.speed_against(copy_long),
            nanos(&[copy_long, vipr_long]),
        ),
    ]
}

/// A small table.
pub fn few(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::direct("vb-few");
    let contenders: Vec<Box<dyn Contender>> = vec![
        CopyLoop::over(&taps),
        Router::ready(&Setup::with_connections(scale.few), taps.clone()),
    ];
    let work = |contender, connections| (contender, Workload::of(established(connections), 64));
    let lanes = [work(0, scale.few), work(1, scale.few), work(0, 1), work(1, 1)];
    let series = session(cores, &taps, contenders, &lanes).run(scale.rounds);
    let [copy, vipr, copy_one, vipr_one] = &series[..] else { unreachable!() };
    vec![
        Row {
            what: format!("the same, {} connections", scale.few),
            must: Bound::AtLeast(1.00),
            aim: Bound::AtLeast(1.07),
            measured: vipr.speed_against(copy),
            note: nanos(&[copy, vipr]),
        },
        Row {
            what: "the same, 1 connection".to_owned(),
            must: Bound::AtLeast(1.00),
            aim: Bound::AtLeast(1.07),
            measured: vipr_one.speed_against(copy_one),
            note: nanos(&[copy_one, vipr_one]),
        },
    ]
}

/// A bridge on either side, and beyond it a virtual cable.
pub fn bridges(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::bridged("vb");
    let contenders: Vec<Box<dyn Contender>> = vec![
        CopyLoop::over(&taps),
        Router::ready(&Setup::with_connections(scale.many), taps.clone()),
    ];
    let work = |contender, connections| (contender, Workload::of(established(connections), 64));
    let lanes = [work(0, scale.few), work(1, scale.few), work(0, scale.many), work(1, scale.many)];
    let series = session(cores, &taps, contenders, &lanes).run(scale.rounds);
    let [copy, vipr, copy_many, vipr_many] = &series[..] else { unreachable!() };
    vec![
        Row {
            what: format!("bridges on both sides, {} of {} connections", scale.few, scale.many),
            must: Bound::AtLeast(1.00),
            aim: Bound::AtLeast(1.07),
            measured: vipr.speed_against(copy),
            note: nanos(&[copy, vipr]),
        },
        Row {
            what: format!("bridges on both sides, all {} connections", scale.many),
            must: Bound::AtLeast(1.00),
            aim: Bound::AtLeast(1.07),
            measured: vipr_many.speed_against(copy_many),
            note: nanos(&[copy_many, vipr_many]),
        },
        Row::told(
            "the same, the sender's part of the path included",
            vipr_many.path_speed_against(copy_many),
            "",
        ),
    ]
}

/// Frames that come few at a time.
pub fn bursts(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::direct("vb-burst");
    let contenders: Vec<Box<dyn Contender>> = vec![
        CopyLoop::over(&taps),
        Router::ready(&Setup::with_connections(scale.few), taps.clone()),
    ];
    let lanes: Vec<(usize, Workload)> = [1, 4, 16]
        .into_iter()
        .flat_map(|burst| {
            [0, 1].map(|contender| {
                (contender, Workload { kind: established(scale.few), len: 64, burst })
            })
        })
        .collect();
    let series = session(cores, &taps, contenders, &lanes).run(scale.rounds);
    let row = |what: &str, must, aim, pair: usize| {
        let (copy, vipr) = (&series[pair], &series[pair + 1]);
        Row {
            what: what.to_owned(),
            must,
            aim,
            measured: vipr.speed_against(copy),
            note: nanos(&[copy, vipr]),
        }
    };
    vec![
        row("one frame at a time", Bound::AtLeast(0.60), Bound::AtLeast(0.70), 0),
        row("four at a time", Bound::None, Bound::None, 2),
        row("sixteen at a time", Bound::None, Bound::None, 4),
    ]
}

/// New connections beside established ones, and what is not forwarded.
pub fn opening(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::direct("vb-open");
    let setup = Setup::with_connections(scale.few);
    let contenders: Vec<Box<dyn Contender>> = vec![Router::ready(&setup, taps.clone())];
    let kinds = [
        established(scale.few),
        Kind::OpenAndReset { services: 1 },
        Kind::Open { services: 1 },
        Kind::ArpRequest,
        Kind::NotVip,
    ];
    let lanes = kinds.map(|kind| (0, Workload::of(kind, 64)));
    let mut series = session(cores, &taps, contenders, &lanes).run(scale.rounds);
    for (series, name) in
        series.iter_mut().zip(["established", "SYN and RST", "SYN", "ARP request", "dropped"])
    {
        series.name = name.to_owned();
    }
    let [known, reset, open, arp, dropped] = &series[..] else { unreachable!() };
    vec![
        Row {
            what: "new connections (SYN → RST) beside established forwarding".to_owned(),
            must: Bound::AtLeast(0.70),
            aim: Bound::AtLeast(0.90),
            measured: reset.speed_against(known),
            note: nanos(&[known, reset]),
        },
        Row {
            what: "new connections (SYN alone) beside established forwarding".to_owned(),
            must: Bound::AtLeast(0.70),
            aim: Bound::AtLeast(0.90),
            measured: open.speed_against(known),
            note: nanos(&[known, open]),
        },
        Row::told(
            "ARP requests answered, beside the same",
            arp.speed_against(known),
            nanos(&[arp]),
        ),
        Row::told(
            "frames dropped as nobody's, beside the same",
            dropped.speed_against(known),
            nanos(&[dropped]),
        ),
    ]
}

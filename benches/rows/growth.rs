//! How the cost of a frame grows with what there is.

use crate::support::Scale;
use crate::support::contender::Contender;
use crate::support::frames::{Kind, Workload};
use crate::support::place::Cores;
use crate::support::router::{Router, Setup};
use crate::support::session::{Lane, Session};
use crate::support::table::{Bound, Row, nanos};
use crate::support::taps::Taps;

/// Every row but the first of a comparison is beside the first router.
pub fn run(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::direct("vb-grow");
    // New connections need room beside all the others.
    let connections_max = 2 * scale.many;
    let roomy = |connections| Setup { connections_max, ..Setup::with_connections(connections) };
    let base = roomy(scale.few).named("1");
    let large = scale.large;
    let name = large.to_string();
    let setups = [
        base.clone(),
        Setup { services: large, ..base.clone() }.named(&name),
        Setup { real_servers: large, ..base.clone() }.named(&name),
        Setup { real_servers: large, scheduler: "wlc", ..base.clone() }.named(&name),
        roomy(1).named("1"),
        roomy(scale.many).named(&scale.many.to_string()),
    ];
    let contenders = setups
        .iter()
        .map(|setup| -> Box<dyn Contender> { Router::ready(setup, taps.clone()) })
        .collect();
    let known = |router: usize| {
        let Setup { connections, services, .. } = setups[router];
        (router, Kind::Established { connections, services })
    };
    let new = |router: usize| (router, Kind::Open { services: setups[router].services });
    let lanes = [
        known(0),
        known(1),
        known(2),
        known(4),
        known(5), //
        new(0),
        new(1),
        new(2),
        new(3),
        new(5),
    ];
    let lanes = lanes.map(|(contender, kind)| Lane {
        contender,
        workload: Workload::of(kind, 64),
        entrance: taps.entrance.clone(),
        exit: taps.exit.clone(),
    });
    let mut session = Session { cores, contenders, lanes: lanes.into() };
    let series = session.run(scale.rounds);
    let row = |what: String, few: usize, many: usize| Row {
        what,
        must: Bound::AtMost(1.5),
        aim: Bound::AtMost(1.2),
        measured: series[many].cost_against(&series[few]),
        note: nanos(&[&series[few], &series[many]]),
    };
    vec![
        row(format!("cost of a frame, 1 → {large} services"), 0, 1),
        row(format!("cost of a frame, 1 → {large} real servers"), 0, 2),
        row(format!("cost of a frame, 1 → {} connections", scale.many), 3, 4),
        row(format!("cost of a new connection, 1 → {large} services"), 5, 6),
        row(format!("cost of a new connection, 1 → {large} real servers, wrr"), 5, 7),
        row(format!("cost of a new connection, 1 → {large} real servers, wlc"), 5, 8),
        row(format!("cost of a new connection, {} → {} others", scale.few, scale.many), 5, 9),
    ]
}

//! What a full table keeps in memory.

use crate::support::Scale;
use crate::support::place::{Cores, resident};
use crate::support::router::{Router, Setup};
use crate::support::session::Spread;
use crate::support::table::{Bound, Row};
use crate::support::taps::Taps;

/// To be run by a process that has had no other router: memory that one left would be used again.
pub fn run(scale: Scale, _: Cores) -> Vec<Row> {
    let taps = Taps::direct("vb-mem");
    let mut router = Router::ready(&Setup::with_connections(64), taps);
    let idle = resident();
    router.establish(scale.many, 1);
    let mib = (resident() - idle) as f64 / f64::from(1 << 20);
    vec![Row {
        what: format!("MiB resident for {} connections", scale.many),
        must: Bound::AtMost(160.0),
        aim: Bound::AtMost(128.0),
        measured: Spread::exactly(mib),
        note: format!("idle {:.1} MiB", idle as f64 / f64::from(1 << 20)),
    }]
}

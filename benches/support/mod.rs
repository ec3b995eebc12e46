//! What the forwarding benchmarks share: a place, something that sends, something that forwards,
//! and the arithmetic of comparing.
//!
//! A benchmark is a list of [`Lane`](session::Lane)s, taken in turns within one run. A lane is
//!
//! - a **contender** ([`contender`]): whatever gets frames from one interface to another: the
//!   least loop that could ([`contender::CopyLoop`]), or a whole router with any configuration on
//!   any ports ([`router::Router`]);
//! - a **workload** ([`frames::Workload`]): what is sent, how long, and how many at a time;
//! - an **entrance** and an **exit**: the interface the frames are sent through, and the one whose
//!   counter has to show every one of them afterwards.
//!
//! So a benchmark of another kind of port needs its interfaces ([`place`]), a router on them, and
//! a list of lanes. What comes of it are rows of one table ([`table`]).

pub mod contender;
pub mod frames;
pub mod place;
pub mod router;
pub mod sender;
pub mod session;
pub mod table;
pub mod taps;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Rounds of a session, a turn of each lane in each.
    pub rounds: usize,
    /// Connections of the large tables, a power of two.
    pub many: u32,
    /// Connections of the small ones.
    pub few: u32,
    /// Services, or real servers, where there are many.
    pub large: u32,
}

/// The table in the README.
pub const BENCHMARK: Scale = Scale { rounds: 101, many: 1 << 20, few: 10_000, large: 1_000 };
/// As a test of the benchmark itself.
pub const TEST: Scale = Scale { rounds: 1, many: 1 << 12, few: 1_000, large: 20 };

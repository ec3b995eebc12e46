//! The rows of the table, by what they need to be measured.

pub mod attach;
pub mod forwarding;
pub mod growth;
pub mod latency;
pub mod memory;

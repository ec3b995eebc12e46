//! Frames in place, without state: parsing, emitting, and the rewrite of two MAC addresses.
//!
//! This layer knows bytes and RFCs. It does not know services, connections, time or ports.
//! Everything that arrives is hostile: a parse either gives a value whose every offset lies
//! inside the frame, or a [`Malformed`](packet::Malformed) that names what was wrong.

pub mod arp;
pub mod checksum;
mod emit;
pub mod finish;
pub mod fragment;
pub mod frame;
pub mod icmp;
pub mod ipv6;
pub mod mac;
pub mod mld;
pub mod nd;
pub mod offload;
pub mod packet;
mod quote;
#[cfg(test)]
pub(crate) mod samples;
pub mod sctp;
pub mod tcp;
pub mod vlan;

pub use frame::{Burst, Frame};
pub use mac::MacAddr;
pub use offload::Offload;

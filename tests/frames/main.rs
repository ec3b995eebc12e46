//! Whole frames into the core, whole frames and verdicts out of it.

#[path = "../harness/mod.rs"]
mod harness;

mod answers;
mod arp;
mod connections;
mod fragments;
mod hold;
mod icmp_errors;
mod ipv6;
mod ipv6_discovery;
mod loops;
mod refused;
mod reload;
mod scheduling;
mod state;
mod time;

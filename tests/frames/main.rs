//! Whole frames into the core, whole frames and verdicts out of it.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../simulation/random.rs"]
mod random;

mod answers;
mod arp;
mod batch;
mod check_kinds;
mod checks;
mod connections;
mod doctor;
mod fragments;
mod groups;
mod guardian;
mod hold;
mod icmp_errors;
mod ipv6;
mod ipv6_discovery;
mod loops;
mod refused;
mod reload;
mod scheduling;
mod sctp;
mod sorry;
mod state;
mod time;
mod vlan;

//! The lab: a direct-routing cluster of virtual machines, and the stories it tells.
//!
//! [`description`] is what `vm/lab.toml` says, [`cluster`] boots it, [`hub`] is the network between
//! the machines, [`stories`] are what is shown and asserted, [`session`] is a lab that stays up for
//! a person.

mod agent;
mod assets;
pub mod bench;
mod cluster;
mod config_disk;
mod description;
mod disk_image;
mod faults;
mod hub;
mod machine;
mod pcap;
pub mod session;
mod setup;
mod stop;
pub mod stories;
mod tally;
pub mod visitor;

//! Everything around the core that does I/O: the event loop, the control socket, metrics, signals,
//! the watch on the configuration file, the state that outlives a restart, the log.
//!
//! One thread moves frames ([`event_loop`]); one reads the configuration when it changes
//! ([`watch`]). Between them there is one atomically swapped value and a waker, no lock.

mod bell;
pub mod clock;
mod commands;
pub mod control;
pub mod devices;
pub mod doctor;
pub mod event_log;
pub mod event_loop;
#[cfg(test)]
mod fake;
pub mod file;
mod followed;
pub mod follower;
mod guards;
mod link_watch;
pub mod logger;
pub mod metrics;
pub mod ports;
mod prometheus;
pub mod protocol;
mod router;
mod server;
pub mod signals;
mod state;
pub mod systemd;
mod tokens;
mod urgent;
pub mod watch;
mod watched;

//! vipr: a director for LVS direct routing, as its own small network stack.
//!
//! A tour, in the order a frame travels:
//!
//! - [`port`]: how frames come and go (TAP devices, interfaces of the host, capture files). The
//!   only unsafe code.
//! - [`shell`]: the single-threaded event loop around everything: ports, timers, signals, the
//!   control socket, and the watch on the configuration file.
//! - [`director`]: the core. A frame goes in, a verdict comes out. No sockets, no clock, no threads.
//! - [`wire`]: frames in place: one parse, ARP, neighbor discovery, ICMP, resets, tags, fragments,
//!   the MAC rewrite. No state.
//! - [`config`]: the TOML file, its diagnostics, and the validated, immutable
//!   [`Snapshot`](config::Snapshot) the core runs on.
//! - [`cli`]: one file a command.
//! - [`init`]: vipr as the only program of a machine, around the router.
//!
//! Imports point one way: `cli → {shell, init}`, `init → shell → {port, director, config}`,
//! `director → {wire, config}`, `port → wire`, `config → wire`. `tests/architecture.rs` enforces it.

pub mod cli;
pub mod config;
pub mod director;
pub mod init;
pub mod port;
pub mod shell;
pub mod wire;

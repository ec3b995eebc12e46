//! Virtual machines around vipr: archives and images to boot, and a direct-routing cluster.
//!
//! [`build`] makes what machines boot, [`lab`] boots it and tells stories with it.

mod build;
mod cli;
mod lab;

fn main() -> std::process::ExitCode {
    cli::main()
}

//! Virtual machines around vipr: archives and images to boot, and a direct-routing cluster.
//!
//! [`build`] makes what machines boot.

mod build;
mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}

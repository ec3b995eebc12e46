//! The archive with vipr as the only program.

use std::path::Path;

use super::cpio::Archive;
use super::guest::pack;
use super::modules::Modules;
use super::{Error, Result, elf, read};

/// What a machine with vipr alone needs: first what frames pass, then what a configuration may come
/// by, then the power button.
const MODULES: [&str; 15] = [
    "virtio_pci",
    "virtio_net",
    "tun",
    "bridge",
    "virtio_console",
    "virtio_blk",
    "button",
    "evdev",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "virtiofs",
    "vmxnet3",
    "e1000",
];

/// The archive for `vipr`, a static binary, with a configuration or without one.
pub fn archive(modules: &Modules, vipr: &Path, config: Option<&Path>) -> Result<Vec<u8>> {
    let program = read(vipr).map_err(|error| {
        Error(format!("{error}: make image builds it (or name another with --vipr)"))
    })?;
    if !elf::libraries(&program).is_empty() {
        return Err(Error(format!(
            "{}: it needs libraries, and an image has none: build it with \
             RUSTFLAGS='-C target-feature=+crt-static' --target x86_64-unknown-linux-gnu",
            vipr.display()
        )));
    }
    let mut archive = Archive::bootable();
    archive.program("init", program);
    // Not every kernel has every one of them as a module, nor at all.
    let wanted: Vec<&str> = MODULES.iter().copied().filter(|name| modules.has(name)).collect();
    pack(&mut archive, &modules.in_order(&wanted)?);
    for folder in ["proc", "sys", "run", "etc/vipr"] {
        archive.directory(folder);
    }
    if let Some(config) = config {
        archive.file("etc/vipr/vipr.toml", read(config)?);
    }
    Ok(archive.finish_compressed())
}

//! The archive with vipr as the only program.

use std::path::Path;

use super::cpio::Archive;
use super::guest::pack;
use super::modules::Modules;
use super::{Error, Result, elf, read};

/// What a machine with vipr alone may need, by the occasion on which it is loaded: each module takes
/// time, above all where the machine is emulated.
const MODULES: [(&str, &[&str]); 5] = [
    // What frames pass, and the ports to the host.
    ("start", &["virtio_pci", "virtio_net", "tun", "bridge", "virtio_console"]),
    // Cards that are not virtio's.
    ("cards", &["vmxnet3", "e1000"]),
    // What a configuration may come by.
    ("disk", &["virtio_blk", "vfat", "nls_cp437", "nls_ascii", "nls_utf8"]),
    ("virtiofs", &["virtiofs"]),
    // The power button.
    ("button", &["button", "evdev"]),
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
    for (occasion, names) in MODULES {
        let (wanted, absent): (Vec<&str>, Vec<&str>) =
            names.iter().copied().partition(|name| modules.has(name));
        if !absent.is_empty() {
            println!("this kernel has no module {}: built in, or not at all", absent.join(", "));
        }
        pack(&mut archive, occasion, &modules.in_order(&wanted)?);
    }
    for folder in ["proc", "sys", "run", "etc/vipr"] {
        archive.directory(folder);
    }
    if let Some(config) = config {
        archive.file("etc/vipr/vipr.toml", read(config)?);
    }
    Ok(archive.finish_compressed())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::elf::tests::module;
    use super::*;

    #[test]
    fn the_same_input_makes_the_same_image_and_another_configuration_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("modules")).unwrap();
        for name in ["tun", "virtio_net", "bridge"] {
            let file = path("modules").join(name).with_extension("ko");
            fs::write(file, module(b"depends=\0")).unwrap();
        }
        let modules = Modules::find(&path("modules")).unwrap();
        fs::write(path("vipr"), b"\x7fELF static").unwrap();
        let build = |text: &str| {
            fs::write(path("vipr.toml"), text).unwrap();
            archive(&modules, &path("vipr"), Some(&path("vipr.toml"))).unwrap()
        };
        let first = build("# one");
        assert_eq!(first, build("# one"));
        assert_ne!(first, build("# two"));
    }

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tun.ko"), module(b"depends=\0")).unwrap();
        let modules = Modules::find(folder.path()).unwrap();
        let own = std::env::current_exe().unwrap();
        let error = archive(&modules, &own, None).unwrap_err().to_string();
        assert!(error.contains("crt-static"), "{error}");
        let error = archive(&modules, &folder.path().join("none"), None).unwrap_err().to_string();
        assert!(error.contains("make image"), "{error}");
    }
}

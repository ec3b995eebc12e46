//! The archive of an ordinary machine of the lab: busybox, kernel modules, and a few programs of
//! the distribution's with their libraries.
//!
//! Its first program is the script `guest-init.sh`, which does what it is told by the host.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::modules::{Module, Modules};
use super::packages::Packages;
use super::{Error, Result, elf, read};

/// What runs first.
const INIT: &str = include_str!("guest-init.sh");
/// Where the loader looks for libraries, first of all.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// The loader itself, as programs name it.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// The modules that every virtual machine needs here: its cards, and the port to the host.
pub const CARDS: [&str; 3] = ["virtio_pci", "virtio_net", "virtio_console"];
/// What a real server may hide from ARP with.
pub const ARP_FILTERS: [&str; 5] =
    ["arp_tables", "arptable_filter", "arpt_mangle", "nf_tables", "nft_compat"];

/// What becomes a machine.
#[derive(Debug, Default)]
pub struct Guest {
    archive: Archive,
    libraries: BTreeSet<String>,
}

impl Guest {
    /// A machine with busybox and nothing else.
    pub fn new(packages: &Packages) -> Result<Guest> {
        let mut guest = Guest { archive: Archive::bootable(), libraries: BTreeSet::new() };
        let busybox = packages.unpacked("busybox-static")?;
        let program = [busybox.join("bin/busybox"), busybox.join("usr/bin/busybox")];
        let program = program.iter().find(|path| path.is_file());
        let program = program.ok_or_else(|| Error::new("package busybox-static: no busybox"))?;
        guest.archive.program("bin/busybox", read(program)?);
        guest.archive.program("init", INIT);
        for folder in ["proc", "sys", "run", "tmp", "root", "etc", "modules", "www"] {
            guest.archive.directory(folder);
        }
        guest.archive.link("var", "tmp");
        guest.archive.file("etc/passwd", "root::0:0:root:/root:/bin/sh\n");
        guest.archive.file("etc/group", "root::0:\n");
        Ok(guest)
    }

    /// Packs modules, to be loaded in an order that works.
    pub fn modules(&mut self, modules: &Modules, wanted: &[&str]) -> Result<()> {
        pack(&mut self.archive, "order", &modules.in_order(wanted)?);
        Ok(())
    }

    /// Packs a program of a package, with the libraries it needs.
    pub fn program(&mut self, packages: &Packages, package: &str, path: &str) -> Result<()> {
        let folders = packages.with_libraries(package)?;
        let file = folders.iter().map(|folder| folder.join(path)).find(|path| path.is_file());
        let file = file.ok_or_else(|| Error(format!("package {package}: it has no {path}")))?;
        let content = read(&file)?;
        self.libraries_of(&folders, package, &content)?;
        self.archive.program(path, content);
        Ok(())
    }

    pub fn executable(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.archive.program(path, content);
    }

    /// The archive, not compressed: it is made to be booted here and now.
    pub fn finish(&self) -> Vec<u8> {
        self.archive.finish()
    }

    fn libraries_of(&mut self, folders: &[PathBuf], package: &str, program: &[u8]) -> Result<()> {
        for name in elf::libraries(program) {
            if !self.libraries.insert(name.clone()) {
                continue;
            }
            let file = folders.iter().find_map(|folder| library(folder, &name));
            let file = file.ok_or_else(|| {
                Error(format!("package {package}: no package it depends on has {name}"))
            })?;
            let content = read(&file)?;
            self.libraries_of(folders, package, &content)?;
            let place = if LOADER.ends_with(&name) {
                LOADER.to_owned()
            } else {
                format!("{LIBRARIES}/{name}")
            };
            self.archive.program(&place, content);
        }
        if !elf::libraries(program).is_empty() && self.libraries.insert("(loader)".to_owned()) {
            let name = LOADER.rsplit('/').next().unwrap_or(LOADER);
            let file = folders.iter().find_map(|folder| library(folder, name));
            let file = file.ok_or_else(|| Error::new("package libc6: it has no loader"))?;
            self.archive.program(LOADER, read(&file)?);
        }
        Ok(())
    }
}

/// Packs modules as both kinds of machine load them: by a list in the folder `modules`.
pub fn pack(archive: &mut Archive, list: &str, modules: &[Module]) {
    let mut order = String::new();
    for module in modules {
        archive.file(&format!("modules/{}.ko", module.name), module.content.clone());
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.file(&format!("modules/{list}"), order);
}

fn library(folder: &Path, name: &str) -> Option<PathBuf> {
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64"]
        .iter()
        .map(|place| folder.join(place).join(name))
        // A link may lead to a place that is elsewhere here.
        .find(|path| fs::metadata(path).is_ok_and(|file| file.is_file()))
}

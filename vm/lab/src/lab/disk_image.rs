//! The disk image, tested: the same input makes the same bytes, and UEFI starts a router from it that
//! answers ARP.

use std::fs;
use std::path::{Path, PathBuf};

use super::bench::boot_until_reply;
use super::cluster::{boot_patience, run_folder};
use super::machine::{Accelerator, Boot, Plan};
use super::session::Options;
use super::stop;
use crate::build::disk::{self, Contents};
use crate::build::packages::{Kernel, Packages};
use crate::build::{self, Error, Result, image};

pub const NAME: &str = "disk-image";
pub const LESSON: &str = "images are the same bytes each time, and UEFI boots the disk";

/// What the image is to run on: see [`boot_until_reply`].
const CONFIG: &str = "config/only-program.toml";
/// The package with UEFI for virtual machines, and the file in it.
const FIRMWARE: (&str, &str) = ("ovmf", "usr/share/OVMF/OVMF_CODE.fd");

/// Builds twice and boots once.
pub fn check(options: &Options, accelerator: Accelerator) -> Result<()> {
    let packages = Packages::new(options.cache.join("packages"));
    let folder = run_folder()?;
    let one = build(options, &packages, &folder.path().join("one"))?;
    let two = build(options, &packages, &folder.path().join("two"))?;
    for name in ["vipr.cpio.gz", "vipr.raw"] {
        let same = build::read(&one.join(name))? == build::read(&two.join(name))?;
        println!(
            "    {} {name}: built twice, the same bytes",
            if same { "ok   " } else { "WRONG" }
        );
        if !same {
            return Err(Error(format!("{name}: built twice, it is not the same")));
        }
    }
    let firmware = packages.unpacked(FIRMWARE.0)?.join(FIRMWARE.1);
    boot(&firmware, &one.join("vipr.raw"), accelerator, folder.path())
}

fn build(options: &Options, packages: &Packages, folder: &Path) -> Result<PathBuf> {
    let kernel = Kernel::find(packages)?;
    let archive = image::archive(&kernel.modules()?, &options.vipr, Some(Path::new(CONFIG)))?;
    let initrd = folder.join("vipr.cpio.gz");
    build::write(&initrd, &archive)?;
    let contents = Contents { kernel: &kernel.image, initrd: &initrd, options: disk::OPTIONS };
    disk::build(packages, &contents, &folder.join("vipr.raw"))?;
    Ok(folder.to_owned())
}

fn boot(firmware: &Path, disk: &Path, accelerator: Accelerator, folder: &Path) -> Result<()> {
    let before = build::read(disk)?;
    let start = Boot::Disk { firmware: firmware.to_owned(), disk: disk.to_owned() };
    let plan = Plan::new("disk", 256, start);
    let (time, machine) = boot_until_reply(plan, accelerator, folder, boot_patience())?;
    drop(machine);
    stop::forget_all();
    println!(
        "    ok    booted by UEFI, ARP for the VIP answered after {:.1} s",
        time.as_secs_f32()
    );
    let same = fs::read(disk).is_ok_and(|now| now == before);
    println!("    {} and the disk is as it was", if same { "ok   " } else { "WRONG" });
    if same { Ok(()) } else { Err(Error::new("the disk has changed by being booted")) }
}

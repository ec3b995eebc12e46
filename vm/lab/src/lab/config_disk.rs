//! A configuration on a second disk, tested: with vipr as the only program, by direct boot, on cards of
//! both models whose modules an image has.

use std::path::Path;

use super::bench::boot_until_reply;
use super::cluster::{boot_patience, run_folder};
use super::machine::{Accelerator, Boot, CardModel, Plan};
use super::session::Options;
use super::stop;
use crate::build::packages::{Kernel, Packages};
use crate::build::{self, Error, Result, disk, image};

pub const NAME: &str = "second-disk";
pub const LESSON: &str = "the configuration may be on a disk of its own, bare or in a file system";

/// What the router is to run on: see [`boot_until_reply`].
const CONFIG: &str = "config/only-program.toml";

/// Boots once for each kind of disk.
pub fn check(options: &Options, accelerator: Accelerator) -> Result<()> {
    let packages = Packages::new(options.cache.join("packages"));
    let folder = run_folder()?;
    let kernel = Kernel::find(&packages)?;
    let initrd = folder.path().join("vipr.cpio.gz");
    build::write(&initrd, &image::archive(&kernel.modules()?, &options.vipr, None)?)?;
    let [bare, fat] = ["bare", "fat"].map(|name| folder.path().join(name));
    // A disk is whole sectors, and the text ends where zeroes begin.
    let mut text = build::read(Path::new(CONFIG))?;
    text.resize(text.len().next_multiple_of(512), 0);
    build::write(&bare, &text)?;
    disk::build_fat(&packages, Path::new(CONFIG), "vipr.toml", &fat)?;
    for (name, disk, model) in [("bare", bare, CardModel::Virtio), ("FAT", fat, CardModel::Vmxnet3)]
    {
        let start = Boot::Kernel {
            kernel: kernel.image.clone(),
            initrd: initrd.clone(),
            append: "vipr.config=disk:/dev/vda".to_owned(),
        };
        let mut plan = Plan::new(name, 128, start);
        plan.disks = vec![disk];
        plan.model = model;
        let result = boot_until_reply(plan, accelerator, folder.path(), boot_patience());
        let (time, machine) =
            result.map_err(|error| Error(format!("configuration on a {name} disk: {error}")))?;
        drop(machine);
        stop::forget_all();
        println!(
            "    ok    {name} disk, {model:?} card: ARP for the VIP answered after {:.1} s",
            time.as_secs_f32()
        );
    }
    Ok(())
}

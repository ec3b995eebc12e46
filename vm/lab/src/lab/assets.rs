//! What the lab's machines boot, built where it is not there.

use std::path::{Path, PathBuf};

use crate::build::guest::{ARP_FILTERS, CARDS, Guest};
use crate::build::packages::{Kernel, Packages};
use crate::build::{self, Result, image, vmlinux};

/// Programs of the distribution's that the stories need: package and file.
const PROGRAMS: [(&str, &str); 4] = [
    ("nginx", "usr/sbin/nginx"),
    ("arptables", "usr/sbin/arptables-legacy"),
    ("nftables", "usr/sbin/nft"),
    ("ipvsadm", "sbin/ipvsadm"),
];
/// IPVS with the schedulers that the lab may be described with.
const IPVS: [&str; 5] = ["ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc"];

/// The kernel and the two archives.
#[derive(Clone, Debug)]
pub struct Assets {
    pub kernel: PathBuf,
    /// Of client, real servers, and a director by IPVS.
    pub guest: PathBuf,
    /// Of vipr as the only program.
    pub vipr: PathBuf,
    /// vipr itself.
    pub program: PathBuf,
}

impl Assets {
    pub fn build(cache: &Path, vipr: &Path) -> Result<Assets> {
        let packages = Packages::new(cache.join("packages"));
        let kernel = Kernel::find(&packages)?;
        let modules = kernel.modules()?;
        let mut guest = Guest::new(&packages)?;
        let wanted: Vec<&str> = [&CARDS[..], &ARP_FILTERS, &IPVS].concat();
        guest.modules(&modules, &wanted)?;
        for (package, path) in PROGRAMS {
            guest.program(&packages, package, path)?;
        }
        let assets = Assets {
            kernel: vmlinux::for_qemu(&kernel.image, &cache.join("vmlinux"))?,
            guest: cache.join("guest.cpio"),
            vipr: cache.join("vipr.cpio.gz"),
            program: vipr.to_owned(),
        };
        build::write(&assets.guest, &guest.finish())?;
        build::write(&assets.vipr, &image::archive(&modules, vipr, None)?)?;
        Ok(assets)
    }
}

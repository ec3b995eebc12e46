//! The machine before the router: file systems, kernel modules, settings.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

/// Kernel modules, and for each occasion on which some are needed a list of their names, one a line in
/// the order in which they are to be loaded.
const MODULES: &str = "/modules";
/// `PCI_BASE_CLASS_NETWORK` of `linux/pci_ids.h`, as sysfs shows it.
const PCI_NETWORK: &str = "0x02";

/// The host's own stack has no part in any segment, and a kernel in distress starts again.
const SETTINGS: [(&str, &str); 5] = [
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv4/conf/all/arp_ignore", "8"),
    ("net/ipv4/ip_forward", "0"),
    ("kernel/panic", "10"),
];

/// Mounts what every program expects. There is no log yet: what fails shows in what fails later.
pub fn mount_all() {
    const NONE: Option<&CStr> = None;
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, target) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")]
    {
        let _ = fs::create_dir_all(target);
        let _ = mount(kind, target, kind, safe, NONE);
    }
}

/// Loads the modules that the image was packed with for this occasion.
pub fn load_modules(occasion: &str) {
    let list = Path::new(MODULES).join(occasion);
    let order = match fs::read_to_string(&list) {
        Ok(order) => order,
        Err(error) => {
            log::debug!("{}: {error}: no modules are loaded", list.display());
            return;
        }
    };
    let mut loaded = 0;
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let path = Path::new(MODULES).join(format!("{name}.ko"));
        let result = File::open(&path)
            .and_then(|file| finit_module(&file, c"", 0).map_err(std::io::Error::from));
        match result {
            Ok(()) => loaded += 1,
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
            // A machine need not have every device there is a module for.
            Err(error) => log::warn!("kernel module {name}: not loaded: {error}"),
        }
    }
    log::debug!("{loaded} kernel modules loaded for: {occasion}");
}

/// Loads the modules for cards that there are few of, where there is one.
pub fn load_card_modules() {
    if is_card_without_driver() {
        load_modules("cards");
    }
}

/// Whether a network card on the PCI bus has no driver yet.
fn is_card_without_driver() -> bool {
    let Ok(devices) = fs::read_dir("/sys/bus/pci/devices") else { return false };
    devices.flatten().map(|device| device.path()).any(|device| {
        fs::read_to_string(device.join("class")).is_ok_and(|class| class.starts_with(PCI_NETWORK))
            && !device.join("driver").exists()
    })
}

/// Sets what the kernel is to do.
pub fn apply_settings() {
    for (name, value) in SETTINGS {
        if let Err(error) = fs::write(format!("/proc/sys/{name}"), value) {
            log::debug!("{name}: cannot be set to {value}: {error}");
        }
    }
}

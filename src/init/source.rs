//! Where the configuration comes from, and the copy that the router watches.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::setup;
use crate::config::TEXT_BYTES_MAX;
use crate::shell::file;

/// Where the router's copy is.
pub const COPY: &str = "/run/vipr/vipr.toml";
/// The name of the configuration on a disk or a shared folder.
const NAME: &str = "vipr.toml";
const MOUNTED_AT: &str = "/run/config";
/// What a second disk may be formatted with.
const FILE_SYSTEMS: [&str; 4] = ["vfat", "ext4", "iso9660", "squashfs"];

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file of the image.
    Image(PathBuf),
    /// A disk: a file system with `vipr.toml`, or the bare text.
    Disk(PathBuf),
    /// A folder of the host's with `vipr.toml`; looked at again and again.
    Virtiofs(String),
    /// What the host sends first.
    Port,
}

impl Default for Source {
    fn default() -> Source {
        Source::Image("/etc/vipr/vipr.toml".into())
    }
}

impl Source {
    /// Makes it readable; to be done once. `None` where there is nothing to read yet.
    pub fn open(&self) -> Result<Option<String>, String> {
        match self {
            Source::Image(path) => read(path).map(Some),
            Source::Disk(device) => {
                setup::load_modules("disk");
                read_disk(device).map(Some)
            }
            Source::Virtiofs(tag) => {
                setup::load_modules("virtiofs");
                mount_at(tag, "virtiofs").map_err(|error| {
                    format!(
                        "virtiofs {tag}: cannot be mounted ({error}): is that the tag of a \
                         vhost-user-fs device?"
                    )
                })?;
                read(&Path::new(MOUNTED_AT).join(NAME)).map(Some)
            }
            Source::Port => Ok(None),
        }
    }

    /// What it says now, where it can change without being pushed.
    pub fn look(&self) -> Option<String> {
        match self {
            Source::Virtiofs(_) => read(&Path::new(MOUNTED_AT).join(NAME)).ok(),
            Source::Image(_) | Source::Disk(_) | Source::Port => None,
        }
    }
}

/// Gives the router another text to run on.
pub fn write_copy(text: &str) -> io::Result<()> {
    let copy = Path::new(COPY);
    if let Some(folder) = copy.parent() {
        fs::create_dir_all(folder)?;
    }
    // The router never sees half a file.
    let next = copy.with_extension("new");
    fs::write(&next, text)?;
    fs::rename(&next, copy)
}

fn read(path: &Path) -> Result<String, String> {
    file::read(path).map_err(|error| error.to_string())
}

fn read_disk(device: &Path) -> Result<String, String> {
    if !device.exists() {
        return Err(format!(
            "disk {}: there is none: attach one (-drive file=…,if=virtio), or name another in \
             vipr.config=disk:/dev/…",
            device.display()
        ));
    }
    let name = device.to_string_lossy();
    for kind in FILE_SYSTEMS {
        if mount_at(&name, kind).is_ok() {
            let text = read(&Path::new(MOUNTED_AT).join(NAME));
            let _ = unmount(MOUNTED_AT, UnmountFlags::empty());
            return text;
        }
    }
    bare_text(device).map_err(|error| format!("disk {}: {error}", device.display()))
}

/// The text that a disk begins with, up to the first NUL.
fn bare_text(device: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    let disk = File::open(device).map_err(unreadable)?;
    disk.take(TEXT_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(len);
    String::from_utf8(bytes).ok().filter(|text| !text.trim().is_empty()).ok_or_else(|| {
        format!(
            "neither one of {} with a {NAME} in it, nor the bare text of a configuration",
            FILE_SYSTEMS.join(", ")
        )
    })
}

fn mount_at(source: &str, kind: &str) -> io::Result<()> {
    fs::create_dir_all(MOUNTED_AT)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount(source, MOUNTED_AT, kind, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_may_be_the_bare_text_padded_with_zeros() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        let mut bytes = b"[segment.front]\n".to_vec();
        bytes.resize(512, 0);
        fs::write(&disk, bytes).unwrap();
        assert_eq!(bare_text(&disk).unwrap(), "[segment.front]\n");
        for other in [&b""[..], &[0; 512], &[0xff; 512], b"  \n"] {
            fs::write(&disk, other).unwrap();
            assert!(bare_text(&disk).unwrap_err().contains("neither"), "{other:?}");
        }
    }
}

//! Archives as the kernel unpacks them at boot: cpio in the "newc" format.
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux. Entries are in
//! the order of their names, without owners or times, so equal contents make equal bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use flate2::{Compression, GzBuilder};

const MAGIC: &str = "070701";
/// Headers and contents start at multiples of this.
const ALIGNMENT: usize = 4;
/// The name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Folders above an entry come by themselves.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

impl Archive {
    /// An archive with what a program needs that runs first: `/dev/console`, for the kernel opens
    /// it before there is anything to make it.
    pub fn bootable() -> Archive {
        let mut archive = Archive::default();
        let console = Entry { mode: CHARACTER_DEVICE | 0o600, device: (5, 1), content: Vec::new() };
        archive.add("dev/console", console);
        archive
    }

    pub fn directory(&mut self, path: &str) {
        self.add(path, Entry { mode: DIRECTORY | 0o755, ..Entry::default() });
    }

    /// A file that everyone may read.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.add(path, Entry { mode: FILE | 0o644, content: content.into(), ..Entry::default() });
    }

    /// A file that everyone may execute.
    pub fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.add(path, Entry { mode: FILE | 0o755, content: content.into(), ..Entry::default() });
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, Entry { mode: LINK | 0o777, content: target.into(), ..Entry::default() });
    }

    /// The whole archive.
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            append(&mut bytes, number, path, entry);
        }
        append(&mut bytes, 0, TRAILER, &Entry::default());
        bytes
    }

    /// The whole archive, as small as gzip makes it.
    pub fn finish_compressed(&self) -> Vec<u8> {
        // Neither a time nor a name, and no operating system's number, in the header.
        let mut encoder =
            GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
        encoder
            .write_all(&self.finish())
            .and_then(|()| encoder.finish())
            .expect("writing to memory does not fail")
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        let parents = path.char_indices().filter(|(_, letter)| *letter == '/');
        for (end, _) in parents {
            let parent = Entry { mode: DIRECTORY | 0o755, ..Entry::default() };
            self.entries.entry(path[..end].to_owned()).or_insert(parent);
        }
        self.entries.insert(path.to_owned(), entry);
    }
}

fn append(bytes: &mut Vec<u8>, number: u32, path: &str, entry: &Entry) {
    let links = if entry.mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
    let fields = [
        number,
        entry.mode,
        0, // owner
        0, // group
        links,
        0, // time
        u32::try_from(entry.content.len()).expect("no file here has 4 GiB"),
        0, // the device it was on, major and minor number
        0,
        entry.device.0,
        entry.device.1,
        u32::try_from(path.len() + 1).expect("no name is so long"),
        0, // checksum: not in this format
    ];
    let mut header = MAGIC.to_owned();
    for field in fields {
        let _ = write!(header, "{field:08X}");
    }
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    align(bytes);
    bytes.extend_from_slice(&entry.content);
    align(bytes);
}

fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    /// Every entry's name, mode and content, as a reader of the format finds them.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(at % ALIGNMENT, 0);
            assert_eq!(&bytes[at..at + 6], MAGIC.as_bytes());
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                u32::from_str_radix(str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            let (mode, len, name_len) = (field(1), field(6) as usize, field(11) as usize);
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "no owner, no group, no time");
            let name = at + 110;
            let content = (name + name_len).next_multiple_of(ALIGNMENT);
            assert_eq!(bytes[name + name_len - 1], 0);
            let text = String::from_utf8(bytes[name..name + name_len - 1].to_vec()).unwrap();
            if text == TRAILER {
                assert_eq!(content, bytes.len());
                return found;
            }
            found.push((text, mode, bytes[content..content + len].to_vec()));
            at = (content + len).next_multiple_of(ALIGNMENT);
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_only_once() {
        let mut archive = Archive::default();
        archive.file("/etc/vipr/vipr.toml", "x");
        archive.file("etc/hosts", "127.0.0.1");
        archive.program("init", b"\x7fELF".to_vec());
        archive.link("bin/sh", "busybox");
        let names: Vec<_> = entries(&archive.finish())
            .into_iter()
            .map(|(name, mode, content)| (name, mode, content.len()))
            .collect();
        let row = |name: &str, mode, len| (name.to_owned(), mode, len);
        assert_eq!(
            names,
            [
                row("bin", 0o040_755, 0),
                row("bin/sh", 0o120_777, 7),
                row("etc", 0o040_755, 0),
                row("etc/hosts", 0o100_644, 9),
                row("etc/vipr", 0o040_755, 0),
                row("etc/vipr/vipr.toml", 0o100_644, 1),
                row("init", 0o100_755, 4),
            ]
        );
    }

    #[test]
    fn the_order_of_adding_makes_no_difference_and_the_contents_do() {
        let build = |paths: &[&str], content: &str| {
            let mut archive = Archive::bootable();
            for path in paths {
                archive.file(path, content);
            }
            archive.finish_compressed()
        };
        assert_eq!(build(&["a/b", "c"], "x"), build(&["c", "a/b"], "x"));
        assert_ne!(build(&["a/b", "c"], "x"), build(&["c", "a/b"], "y"));
    }

    #[test]
    fn what_is_compressed_is_the_same_archive_and_smaller() {
        let mut archive = Archive::bootable();
        archive.file("zeros", vec![0; 100_000]);
        let compressed = archive.finish_compressed();
        let mut plain = Vec::new();
        GzDecoder::new(&compressed[..]).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, archive.finish());
        assert!(compressed.len() < plain.len() / 10);
    }

    #[test]
    fn the_kernel_finds_its_console() {
        let bytes = Archive::bootable().finish();
        let console = &entries(&bytes)[1];
        assert_eq!((console.0.as_str(), console.1), ("dev/console", 0o020_600));
    }
}

//! A disk that machines with UEFI boot from: a GPT with one FAT partition, and on it systemd-boot,
//! the kernel, and the archive with the configuration in it.
//!
//! The boot loader and the tools that write FAT (mtools) are the distribution's, unpacked and not
//! installed. Identifiers and times are fixed, so equal contents make an equal disk.
//! The layout: UEFI specification 2.10, section 5.3.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Crc;

use super::packages::Packages;
use super::{Error, Result, write};

const SECTOR: usize = 512;
/// Where the partition begins: at the first mebibyte, as everywhere.
const PARTITION_AT: usize = 1 << 20;
/// Beside the files: the file system's own tables.
const SPARE: usize = 4 << 20;
const ENTRIES: usize = 128;
const ENTRY_LEN: usize = 128;
/// The table of entries, in sectors.
const TABLE: usize = ENTRIES * ENTRY_LEN / SECTOR;
/// An EFI system partition, c12a7328-f81f-11d2-ba4b-00a0c93ec93b, as it is written to disk.
const EFI_SYSTEM: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// "vipr", and which of the two: nobody has to tell two of our disks apart.
const DISK_ID: [u8; 16] = *b"vipr\x00\x00\x00\x40\x80\x00\x00\x00disk";
const PARTITION_ID: [u8; 16] = *b"vipr\x00\x00\x00\x40\x80\x00\x00\x00part";
/// The time of all files: the first that FAT can tell.
const EPOCH: &str = "315532800";
const SERIAL: &str = "76697072";

/// How the kernel of a disk is started: messages on the screen and the first serial port, the
/// configuration in the archive.
pub const OPTIONS: &str = "console=tty0 console=ttyS0 panic=10 quiet";

/// What goes on the disk.
#[derive(Debug)]
pub struct Contents<'a> {
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    /// Words for the kernel.
    pub options: &'a str,
}

/// Writes the disk.
pub fn build(packages: &Packages, contents: &Contents<'_>, output: &Path) -> Result<()> {
    let loader = packages.unpacked("systemd-boot-efi")?;
    let loader = loader.join("usr/lib/systemd/boot/efi/systemd-bootx64.efi");
    let work = tempfile::tempdir().map_err(|error| Error(format!("temporary folder: {error}")))?;
    let file = |name: &str, text: String| -> Result<PathBuf> {
        let path = work.path().join(name);
        write(&path, text.as_bytes())?;
        Ok(path)
    };
    let entry = file(
        "vipr.conf",
        format!("title vipr\nlinux /vmlinuz\ninitrd /vipr.cpio.gz\noptions {}\n", contents.options),
    )?;
    let menu = file("loader.conf", "timeout 0\ndefault vipr.conf\n".to_owned())?;
    let files: [(&Path, &str); 5] = [
        (&loader, "EFI/BOOT/BOOTX64.EFI"),
        (&menu, "loader/loader.conf"),
        (&entry, "loader/entries/vipr.conf"),
        (contents.kernel, "vmlinuz"),
        (contents.initrd, "vipr.cpio.gz"),
    ];
    let mut size = SPARE;
    for (path, _) in &files {
        let len = fs::metadata(path)
            .map_err(|error| Error(format!("{}: cannot be read: {error}", path.display())))?
            .len();
        size += usize::try_from(len).unwrap_or(usize::MAX / 4).next_multiple_of(32 * 1024);
    }
    // FAT16 would do, but its limits depend on the size; 33 MiB on are safe for both.
    let size = size.max(40 << 20).next_multiple_of(1 << 20);
    let disk = partitioned(size);
    write(output, &disk)?;
    let mtools = Mtools { packages, output, at: PARTITION_AT, size };
    mtools.run("mformat", &["-v", "VIPR", "-N", SERIAL, "::"])?;
    for folder in ["EFI", "EFI/BOOT", "loader", "loader/entries"] {
        mtools.run("mmd", &[&format!("::{folder}")])?;
    }
    for (path, place) in files {
        mtools.copy(path, place)?;
    }
    Ok(())
}

/// Writes a disk that is a FAT file system with one file.
pub fn build_fat(packages: &Packages, file: &Path, name: &str, output: &Path) -> Result<()> {
    let size = SPARE;
    write(output, &vec![0; size])?;
    let mtools = Mtools { packages, output, at: 0, size };
    mtools.run("mformat", &["-v", "CONFIG", "-N", SERIAL, "::"])?;
    mtools.copy(file, name)
}

/// The tools that write a FAT file system.
struct Mtools<'a> {
    packages: &'a Packages,
    output: &'a Path,
    /// Where in the output it begins, and its length, in bytes.
    at: usize,
    size: usize,
}

impl Mtools<'_> {
    fn copy(&self, file: &Path, place: &str) -> Result<()> {
        self.run("mcopy", &[&file.to_string_lossy(), &format!("::{place}")])
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let path = self.packages.unpacked("mtools")?.join("usr/bin/mtools");
        let mut command = Command::new(path);
        command.args(["-c", program, "-i"]);
        command.arg(format!("{}@@{}", self.output.display(), self.at));
        if program == "mformat" {
            // Sectors of the partition, and the geometry that mtools insists on.
            command.args(["-T", &(self.size / SECTOR).to_string(), "-h", "16", "-s", "63"]);
        }
        let output = command
            .args(arguments)
            .env("SOURCE_DATE_EPOCH", EPOCH)
            .env("TZ", "UTC")
            .env("MTOOLS_SKIP_CHECK", "1")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error(format!("{program}: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error(format!("{program}: {}", said.lines().last().unwrap_or("it failed"))))
    }
}

/// An empty disk with a partition of `size` bytes.
fn partitioned(size: usize) -> Vec<u8> {
    let mut disk = vec![0; PARTITION_AT + size + (TABLE + 1) * SECTOR];
    let sectors = disk.len() / SECTOR;
    let last = sectors - 1;
    let first_usable = 2 + TABLE;
    let last_usable = last - TABLE - 1;
    let mut entry = Vec::with_capacity(ENTRY_LEN);
    entry.extend(EFI_SYSTEM);
    entry.extend(PARTITION_ID);
    entry.extend((PARTITION_AT / SECTOR).to_le_bytes());
    entry.extend(((PARTITION_AT + size) / SECTOR - 1).to_le_bytes());
    entry.extend(0u64.to_le_bytes());
    entry.extend("vipr".encode_utf16().flat_map(u16::to_le_bytes));
    let mut table = entry;
    table.resize(ENTRIES * ENTRY_LEN, 0);
    let header = |own: usize, other: usize, table_at: usize| {
        let mut header = b"EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00".to_vec();
        header.extend([0; 8]);
        for sector in [own, other, first_usable, last_usable] {
            header.extend(sector.to_le_bytes());
        }
        header.extend(DISK_ID);
        header.extend(table_at.to_le_bytes());
        header.extend(u32::to_le_bytes(ENTRIES as u32));
        header.extend(u32::to_le_bytes(ENTRY_LEN as u32));
        header.extend(crc(&table).to_le_bytes());
        let sum = crc(&header).to_le_bytes();
        header[16..20].copy_from_slice(&sum);
        header
    };
    let (front, back) = (header(1, last, 2), header(last, 1, last - TABLE));
    let mut put = |sector: usize, bytes: &[u8]| {
        disk[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
    };
    // The protective MBR: one partition of type 0xee over everything.
    put(0, &protective(sectors));
    put(1, &front);
    put(2, &table);
    put(last - TABLE, &table);
    put(last, &back);
    disk
}

fn protective(sectors: usize) -> [u8; SECTOR] {
    let mut mbr = [0; SECTOR];
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1u32.to_le_bytes());
    let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[458..462].copy_from_slice(&covered.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_table_is_there_twice_and_adds_up() {
        let size = 40 << 20;
        let disk = partitioned(size);
        let last = disk.len() / SECTOR - 1;
        let number = |sector: usize, at: usize, len: usize| {
            let bytes = &disk[sector * SECTOR + at..][..len];
            bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)) as usize
        };
        for (own, other) in [(1, last), (last, 1)] {
            assert_eq!(&disk[own * SECTOR..][..8], b"EFI PART");
            assert_eq!((number(own, 24, 8), number(own, 32, 8)), (own, other));
            let mut header = disk[own * SECTOR..][..92].to_vec();
            let sum = number(own, 16, 4);
            header[16..20].fill(0);
            assert_eq!(crc(&header) as usize, sum);
            let table = &disk[number(own, 72, 8) * SECTOR..][..ENTRIES * ENTRY_LEN];
            assert_eq!(crc(table) as usize, number(own, 88, 4));
            let (first, end) = (number(own, 40, 8), number(own, 48, 8));
            let entry = number(own, 72, 8);
            assert!(number(entry, 32, 8) >= first && number(entry, 40, 8) <= end);
            assert_eq!((number(entry, 40, 8) - number(entry, 32, 8) + 1) * SECTOR, size);
        }
        assert_eq!(disk[510..512], [0x55, 0xaa]);
    }
}

//! The kernel itself out of a bzImage, for QEMU to start by its PVH entry.
//!
//! So the machine need not decompress it, which takes long without hardware virtualisation.
//! The format: `Documentation/arch/x86/boot.rst` of Linux; the entry: `xen/include/public/elfnote.h`.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Error, Result, elf, read, write};

/// Fields of the real-mode header.
const SETUP_SECTORS_AT: usize = 0x1f1;
const MAGIC_AT: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
const VERSION_AT: usize = 0x206;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
/// The first version with the payload's place in it.
const VERSION_MIN: u64 = 0x208;
const SECTOR: usize = 512;
/// What zero in `setup_sects` stands for.
const SETUP_SECTORS_DEFAULT: usize = 4;

/// `XEN_ELFNOTE_PHYS32_ENTRY`: where QEMU starts a kernel that is an ELF file.
const PVH_ENTRY: (&[u8], u64) = (b"Xen\0", 18);

/// How the payload may be compressed.
struct Format {
    /// What it begins with.
    magic: &'static [u8],
    /// The program that decompresses it, and Debian's package with it.
    program: &'static str,
    package: &'static str,
    /// How many bytes the kernel's build has appended: the length, where the format does not end
    /// with it itself.
    appended: usize,
}

const FORMATS: [Format; 4] = [
    Format { magic: b"\x02\x21\x4c\x18", program: "lz4", package: "lz4", appended: 4 },
    Format { magic: b"\xfd7zXZ\0", program: "xz", package: "xz-utils", appended: 4 },
    Format { magic: b"\x28\xb5\x2f\xfd", program: "zstd", package: "zstd", appended: 4 },
    Format { magic: b"\x1f\x8b\x08", program: "gzip", package: "gzip", appended: 0 },
];

/// The kernel for QEMU's `-kernel`: this one decompressed to `output`, or where that cannot be, this
/// one as it is.
pub fn for_qemu(kernel: &Path, output: &Path) -> Result<PathBuf> {
    match read(kernel).and_then(|image| decompressed(&image)) {
        Ok(vmlinux) => {
            write(output, &vmlinux)?;
            Ok(output.to_owned())
        }
        Err(error) => {
            // One of another kernel may be there.
            let _ = fs::remove_file(output);
            eprintln!("{}: {error}: machines boot it as it is, slower", kernel.display());
            Ok(kernel.to_owned())
        }
    }
}

/// The ELF file in a bzImage, if QEMU can start it.
fn decompressed(image: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(image).ok_or_else(|| Error::new("not a whole bzImage"))?;
    let format = FORMATS.iter().find(|format| payload.starts_with(format.magic));
    let format = format.ok_or_else(|| Error::new("compressed in a way not known here"))?;
    let compressed = &payload[..payload.len().saturating_sub(format.appended)];
    let vmlinux = decompress(format, compressed)?;
    let length = payload.last_chunk().map(|length| u32::from_le_bytes(*length) as usize);
    if length != Some(vmlinux.len()) {
        return Err(Error::new("its payload has another length than it says"));
    }
    let (owner, kind) = PVH_ENTRY;
    if !elf::has_note(&vmlinux, owner, kind) {
        return Err(Error::new("it has no PVH entry (CONFIG_PVH)"));
    }
    Ok(vmlinux)
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let field = |at, len| elf::number(image, at, len);
    let place = |at| usize::try_from(field(at, 4)?).ok();
    if image.get(MAGIC_AT..MAGIC_AT + MAGIC.len())? != MAGIC || field(VERSION_AT, 2)? < VERSION_MIN
    {
        return None;
    }
    let sectors = match usize::from(*image.get(SETUP_SECTORS_AT)?) {
        0 => SETUP_SECTORS_DEFAULT,
        sectors => sectors,
    };
    // The boot sector comes before them.
    let start = ((sectors + 1) * SECTOR).checked_add(place(PAYLOAD_OFFSET_AT)?)?;
    image.get(start..start.checked_add(place(PAYLOAD_LENGTH_AT)?)?)
}

fn decompress(format: &Format, compressed: &[u8]) -> Result<Vec<u8>> {
    let Format { program, package, .. } = format;
    // A file and not a pipe: nobody has to write while the other reads.
    let input = tempfile::tempfile().and_then(|mut file| {
        file.write_all(compressed)?;
        file.rewind()?;
        Ok(file)
    });
    let input = input.map_err(|error| Error(format!("temporary file: {error}")))?;
    let output = Command::new(program).arg("-dc").stdin(input).stderr(Stdio::null()).output();
    let output = output.map_err(|error| {
        Error(format!("{program}: {error}: install it (apt-get install {package})"))
    })?;
    if !output.status.success() {
        return Err(Error(format!("{program} cannot decompress its payload")));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::kernel;
    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTORS_AT] = 1;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(MAGIC);
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x20fu16.to_le_bytes());
        image[PAYLOAD_OFFSET_AT..PAYLOAD_OFFSET_AT + 4].copy_from_slice(&16u32.to_le_bytes());
        let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4].copy_from_slice(&len);
        image.extend([0x90; 16]);
        image.extend(payload);
        image.extend([0x90; 16]);
        image
    }

    /// As the kernel's build does it; `None` where the program is not there.
    fn compress(format: &Format, content: &[u8]) -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vmlinux");
        fs::write(&file, content).unwrap();
        let mut command = Command::new(format.program);
        if format.program == "lz4" {
            command.arg("-l");
        }
        let output = command.arg("-c").stdin(fs::File::open(&file).unwrap()).output().ok()?;
        let mut payload = output.stdout;
        if format.appended > 0 {
            payload.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        }
        Some(payload)
    }

    fn refused(image: &[u8]) -> String {
        decompressed(image).unwrap_err().to_string()
    }

    #[test]
    fn a_kernel_comes_out_as_it_went_in_however_it_is_compressed() {
        let vmlinux = kernel(b"Xen\0", 18);
        let mut tried = 0;
        for format in &FORMATS {
            let Some(payload) = compress(format, &vmlinux) else { continue };
            assert!(payload.starts_with(format.magic), "{}", format.program);
            let image = bzimage(&payload);
            assert_eq!(decompressed(&image).unwrap(), vmlinux, "{}", format.program);
            let lying = bzimage(&[&payload[..payload.len() - 4], &[1, 2, 3, 4]].concat());
            assert!(decompressed(&lying).is_err(), "{}", format.program);
            let cut = bzimage(&payload[..payload.len() / 2]);
            assert!(decompressed(&cut).is_err(), "{}", format.program);
            tried += 1;
        }
        assert!(tried > 0, "gzip is everywhere");
    }

    #[test]
    fn what_qemu_cannot_start_is_refused() {
        let gzip = &FORMATS[3];
        for (owner, kind) in [(b"Xen\0", 17), (b"GNU\0", 18)] {
            let image = bzimage(&compress(gzip, &kernel(owner, kind)).unwrap());
            assert!(refused(&image).contains("PVH"), "{owner:?} {kind}");
        }
        let image = bzimage(&compress(gzip, b"not ELF").unwrap());
        assert!(refused(&image).contains("PVH"));
        assert!(refused(&bzimage(b"\x89LZO and more")).contains("not known"));
        for len in 0..8 {
            assert!(decompressed(&bzimage(&b"\x02\x21\x4c\x18\0\0\0"[..len.min(7)])).is_err());
        }
    }

    #[test]
    fn headers_that_are_cut_short_or_lie_are_errors() {
        let image = bzimage(b"\x02\x21\x4c\x18 and more");
        let whole = image.len() - 16;
        for len in 0..whole {
            assert!(refused(&image[..len]).contains("not a whole bzImage"), "{len} bytes");
        }
        let changed = |at: usize, bytes: &[u8]| {
            let mut image = image.clone();
            image[at..at + bytes.len()].copy_from_slice(bytes);
            refused(&image)
        };
        assert!(changed(MAGIC_AT, b"hdrs").contains("not a whole"));
        assert!(changed(VERSION_AT, &[7, 2]).contains("not a whole"));
        for at in [PAYLOAD_OFFSET_AT, PAYLOAD_LENGTH_AT] {
            assert!(changed(at, &[0xff; 4]).contains("not a whole"));
        }
        assert!(changed(SETUP_SECTORS_AT, &[0]).contains("not a whole"), "zero is four");
    }

    #[test]
    fn a_kernel_that_cannot_be_decompressed_boots_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (kernel_at, output) = (folder.path().join("vmlinuz"), folder.path().join("vmlinux"));
        let payload = compress(&FORMATS[3], &kernel(b"Xen\0", 18)).unwrap();
        fs::write(&kernel_at, bzimage(&payload)).unwrap();
        assert_eq!(for_qemu(&kernel_at, &output).unwrap(), output);
        assert_eq!(fs::read(&output).unwrap(), kernel(b"Xen\0", 18));
        fs::write(&kernel_at, "another").unwrap();
        assert_eq!(for_qemu(&kernel_at, &output).unwrap(), kernel_at);
        assert!(!output.exists(), "that was another kernel's");
    }
}

//! What programs and kernel modules say they depend on, and the notes of a kernel.
//!
//! Reads as much of ELF (64 bits, little-endian) as that takes; see elf(5). A file that is not
//! whole has nothing to say, and nothing in it makes this panic.

/// What a file of this kind begins with.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// Offsets in the file header, and the length of a program header and of a section header.
const SEGMENTS_AT: usize = 0x20;
const SEGMENT_SIZE_AT: usize = 0x36;
const SEGMENT_COUNT_AT: usize = 0x38;
const SEGMENT_HEADER_LEN: usize = 56;
const SECTIONS_AT: usize = 0x28;
const SECTION_SIZE_AT: usize = 0x3a;
const SECTION_COUNT_AT: usize = 0x3c;
const NAMES_INDEX_AT: usize = 0x3e;
const SECTION_HEADER_LEN: usize = 64;

/// `PT_NOTE`: the segment with notes; each begins with the lengths of its name and its content, and
/// its type.
const NOTES: u64 = 4;
const NOTE_HEADER_LEN: usize = 12;
const NOTE_ALIGNMENT: usize = 4;

/// `DT_NEEDED`: the entry of the dynamic section that names a library.
const NEEDED: u64 = 1;
const DYNAMIC_ENTRY_LEN: usize = 16;

/// The libraries that the loader finds for this program or library; none for a static one.
pub fn libraries(file: &[u8]) -> Vec<String> {
    let (Some(dynamic), Some(names)) = (section(file, ".dynamic"), section(file, ".dynstr")) else {
        return Vec::new();
    };
    let mut libraries = Vec::new();
    for entry in dynamic.chunks_exact(DYNAMIC_ENTRY_LEN) {
        if number(entry, 0, 8) == Some(NEEDED)
            && let Some(name) = number(entry, 8, 8)
                .and_then(|at| names.get(usize::try_from(at).ok()?..))
                .and_then(|name| name.split(|byte| *byte == 0).next())
        {
            libraries.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    libraries
}

/// The modules this kernel module needs loaded before it; `None` if it is none.
pub fn depends(file: &[u8]) -> Option<Vec<String>> {
    let text = section(file, ".modinfo")?;
    let mut depends = Vec::new();
    for entry in text.split(|byte| *byte == 0) {
        if let Some(list) = entry.strip_prefix(b"depends=") {
            let list = str::from_utf8(list).ok()?;
            depends.extend(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    Some(depends)
}

/// Whether there is a note of this owner and type in what is loaded.
pub fn has_note(file: &[u8], owner: &[u8], kind: u64) -> bool {
    let segments = segments(file, NOTES).unwrap_or_default();
    segments.into_iter().any(|mut notes| {
        while let Some((name, found, rest)) = first_note(notes) {
            if name == owner && found == kind {
                return true;
            }
            notes = rest;
        }
        false
    })
}

/// Name and type of the first note, and what comes after it.
fn first_note(notes: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let len = |at| usize::try_from(number(notes, at, 4)?).ok();
    let (name_len, content_len) = (len(0)?, len(4)?);
    let name = notes.get(NOTE_HEADER_LEN..NOTE_HEADER_LEN.checked_add(name_len)?)?;
    let content = (NOTE_HEADER_LEN + name_len).next_multiple_of(NOTE_ALIGNMENT);
    let end = content.checked_add(content_len)?.next_multiple_of(NOTE_ALIGNMENT);
    Some((name, number(notes, 8, 4)?, notes.get(end..).unwrap_or_default()))
}

/// The contents of all segments of a kind.
fn segments(file: &[u8], wanted: u64) -> Option<Vec<&[u8]>> {
    if !file.starts_with(MAGIC) {
        return None;
    }
    let start = usize::try_from(number(file, SEGMENTS_AT, 8)?).ok()?;
    let size = usize::try_from(number(file, SEGMENT_SIZE_AT, 2)?).ok()?;
    let count = usize::try_from(number(file, SEGMENT_COUNT_AT, 2)?).ok()?;
    if size < SEGMENT_HEADER_LEN {
        return None;
    }
    let segment = |index: usize| {
        let at = start.checked_add(index.checked_mul(size)?)?;
        let header = file.get(at..at.checked_add(SEGMENT_HEADER_LEN)?)?;
        if number(header, 0, 4)? != wanted {
            return None;
        }
        let content = usize::try_from(number(header, 8, 8)?).ok()?;
        let len = usize::try_from(number(header, 32, 8)?).ok()?;
        file.get(content..content.checked_add(len)?)
    };
    Some((0..count).filter_map(segment).collect())
}

fn section<'a>(file: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    if !file.starts_with(MAGIC) {
        return None;
    }
    let start = usize::try_from(number(file, SECTIONS_AT, 8)?).ok()?;
    let size = usize::try_from(number(file, SECTION_SIZE_AT, 2)?).ok()?;
    let count = usize::try_from(number(file, SECTION_COUNT_AT, 2)?).ok()?;
    if size < SECTION_HEADER_LEN {
        return None;
    }
    let header = |index: usize| {
        let at = start.checked_add(index.checked_mul(size)?)?;
        file.get(at..at.checked_add(SECTION_HEADER_LEN)?)
    };
    let content = |header: &[u8]| {
        let at = usize::try_from(number(header, 24, 8)?).ok()?;
        let len = usize::try_from(number(header, 32, 8)?).ok()?;
        file.get(at..at.checked_add(len)?)
    };
    let names = content(header(usize::try_from(number(file, NAMES_INDEX_AT, 2)?).ok()?)?)?;
    (0..count).filter_map(header).find_map(|header| {
        let name = names.get(usize::try_from(number(header, 0, 4)?).ok()?..)?;
        let name = name.split(|byte| *byte == 0).next()?;
        if name == wanted.as_bytes() { content(header) } else { None }
    })
}

/// A little-endian number of `len` bytes.
pub fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A module with nothing but what is read here.
    pub fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let modinfo_at = file.len();
        file.extend_from_slice(modinfo);
        let names_at = file.len();
        file.extend_from_slice(names);
        let sections_at = file.len();
        let mut section = |name: u32, at: usize, len: usize| {
            let mut header = [0; SECTION_HEADER_LEN];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(len as u64).to_le_bytes());
            file.extend_from_slice(&header);
        };
        section(0, 0, 0);
        section(1, modinfo_at, modinfo.len());
        section(10, names_at, names.len());
        file[SECTIONS_AT..SECTIONS_AT + 8].copy_from_slice(&(sections_at as u64).to_le_bytes());
        file[SECTION_SIZE_AT] = 64;
        file[SECTION_COUNT_AT] = 3;
        file[NAMES_INDEX_AT] = 2;
        file
    }

    /// A kernel with nothing but two notes: one that does not matter, and this.
    pub fn kernel(owner: &[u8; 4], kind: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + SEGMENT_HEADER_LEN];
        file[..6].copy_from_slice(MAGIC);
        file[SEGMENTS_AT] = 64;
        file[SEGMENT_SIZE_AT] = 56;
        file[SEGMENT_COUNT_AT] = 1;
        let notes_at = file.len();
        let other: (&[u8], u32, &[u8]) = (b"Linux\0", 0, b"x");
        for (name, kind, content) in [other, (owner, kind, b"\x80\x02\0\x01")] {
            for number in [name.len(), content.len(), kind as usize] {
                file.extend(u32::try_from(number).unwrap().to_le_bytes());
            }
            for bytes in [name, content] {
                file.extend(bytes);
                file.resize(file.len().next_multiple_of(NOTE_ALIGNMENT), 0);
            }
        }
        let len = (file.len() - notes_at) as u64;
        file[64] = 4;
        file[64 + 8..64 + 16].copy_from_slice(&(notes_at as u64).to_le_bytes());
        file[64 + 32..64 + 40].copy_from_slice(&len.to_le_bytes());
        file
    }

    #[test]
    fn a_note_is_known_by_owner_and_type() {
        let file = kernel(b"Xen\0", 18);
        assert!(has_note(&file, b"Xen\0", 18));
        assert!(has_note(&file, b"Linux\0", 0));
        assert!(!has_note(&file, b"Xen\0", 17));
        assert!(!has_note(&file, b"GNU\0", 18));
        assert!(!has_note(&module(b"depends=\0"), b"Xen\0", 18));
    }

    #[test]
    fn a_module_names_what_it_depends_on() {
        let rows: [(&[u8], &[&str]); 4] = [
            (b"license=GPL\0depends=llc,stp\0name=bridge\0", &["llc", "stp"]),
            (b"depends=llc\0", &["llc"]),
            (b"depends=\0", &[]),
            (b"license=GPL\0", &[]),
        ];
        for (modinfo, expected) in rows {
            assert_eq!(depends(&module(modinfo)).unwrap(), expected);
        }
    }

    #[test]
    fn a_program_names_its_libraries() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(libraries(&own).iter().any(|name| name.starts_with("libc.so")));
        assert_eq!(libraries(&module(b"depends=\0")), Vec::<String>::new());
    }

    #[test]
    fn no_file_makes_it_panic_and_none_that_is_cut_short_is_read() {
        let whole = module(b"depends=llc,stp\0");
        for len in 0..whole.len() {
            assert_eq!(depends(&whole[..len]), None, "{len} bytes");
        }
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0xff;
            let _ = (depends(&damaged), libraries(&damaged));
        }
        assert_eq!(depends(b"#!/bin/sh"), None);
        let whole = kernel(b"Xen\0", 18);
        for len in 0..whole.len() {
            assert!(!has_note(&whole[..len], b"Xen\0", 18), "{len} bytes");
        }
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0xff;
            let _ = has_note(&damaged, b"Xen\0", 18);
        }
    }
}

//! Captures as bytes: written field by field, so that the program's own reader and writer are
//! held against something else.

/// Frames with their times in nanoseconds since the Unix epoch.
pub type Frames = Vec<(u64, Vec<u8>)>;

/// A capture's resolution and byte order.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub big_endian: bool,
    pub nanoseconds: bool,
}

/// What tcpdump writes on most machines.
pub const MICROSECONDS: Format = Format { big_endian: false, nanoseconds: false };
pub const NANOSECONDS: Format = Format { big_endian: false, nanoseconds: true };

pub const ALL_FORMATS: [Format; 4] = [
    MICROSECONDS,
    NANOSECONDS,
    Format { big_endian: true, nanoseconds: false },
    Format { big_endian: true, nanoseconds: true },
];

impl Format {
    fn word(self, value: u32) -> [u8; 4] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// The capture of these frames.
    pub fn write(self, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let magic = if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let version = if self.big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let mut bytes = [self.word(magic), version].concat();
        for value in [0, 0, 262_144, 1] {
            bytes.extend(self.word(value));
        }
        for (time, frame) in frames {
            let seconds = u32::try_from(time / 1_000_000_000).expect("before 2106");
            let nanos = (time % 1_000_000_000) as u32;
            let fraction = if self.nanoseconds { nanos } else { nanos / 1000 };
            let len = frame.len() as u32;
            for value in [seconds, fraction, len, len] {
                bytes.extend(self.word(value));
            }
            bytes.extend(frame);
        }
        bytes
    }
}

/// Reads a capture in [`NANOSECONDS`], the format of the program's own.
pub fn read(bytes: &[u8]) -> Frames {
    let word = |at: usize| {
        let field = bytes[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(field)
    };
    assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 1), "nanoseconds, Ethernet");
    let (mut frames, mut at) = (Frames::new(), 24);
    while at < bytes.len() {
        let time = u64::from(word(at)) * 1_000_000_000 + u64::from(word(at + 4));
        let len = word(at + 8) as usize;
        assert_eq!(word(at + 12) as usize, len, "frames are written whole");
        frames.push((time, bytes[at + 16..at + 16 + len].to_vec()));
        at += 16 + len;
    }
    frames
}

//! Captures as programs read them: the classic pcap format, in microseconds.
//!
//! The format: the IETF draft draft-ietf-opsawg-pcap.

use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: u32 = 0xa1b2_c3d4;
const SNAP_LEN: u32 = 262_144;
const ETHERNET: u32 = 1;

/// What a file begins with.
pub fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(4u16.to_le_bytes());
    for word in [0, 0, SNAP_LEN, ETHERNET] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes
}

/// A frame that passes now.
pub fn record(frame: &[u8]) -> Vec<u8> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let len = u32::try_from(frame.len()).unwrap_or(SNAP_LEN);
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(16 + frame.len());
    for word in [seconds, time.subsec_micros(), len, len] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend_from_slice(frame);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_layout_of_the_format() {
        let header = header();
        assert_eq!(header.len(), 24);
        assert_eq!(header[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(header[20..], [1, 0, 0, 0]);
        let record = record(&[7; 60]);
        assert_eq!(record[8..16], [60, 0, 0, 0, 60, 0, 0, 0]);
        assert_eq!(record[16..], [7; 60]);
    }
}

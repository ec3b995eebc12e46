//! Capture files in the classic pcap format: microseconds or nanoseconds, either byte order.
//!
//! Streams: a reader holds one record at a time, of at most [`FRAME_LEN_MAX`] bytes, whatever the
//! file says about itself. pcapng is refused by name. The format: the IETF draft
//! draft-ietf-opsawg-pcap.

use core::time::Duration;
use std::io::{self, Read, Write};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

use super::batch::FRAME_LEN_MAX;

/// What is wrong with a capture. Records are counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error("not a pcap capture")]
    NotPcap,
    #[error("a pcapng capture; only pcap is read (`editcap -F nsecpcap` converts)")]
    PcapNg,
    #[error("captured on link type {0}; only Ethernet (1) is read")]
    LinkType(u32),
    #[error("record {0} is cut short")]
    CutShort(u64),
    #[error("record {0} has {1} bytes; the most is {FRAME_LEN_MAX}")]
    TooLong(u64, u32),
    #[error("record {0} has a time stamp whose fraction is a second or more")]
    TimeStamp(u64),
}

/// Frames from a capture.
pub struct Capture<R> {
    source: R,
    endianness: Endianness,
    resolution: TsResolution,
    /// Read so far.
    records: u64,
}

impl<R: Read> Capture<R> {
    /// Reads the header of a capture. The source should be buffered.
    ///
    /// # Errors
    /// When it is no pcap capture of Ethernet frames, or cannot be read.
    pub fn new(mut source: R) -> Result<Capture<R>, CaptureError> {
        let mut bytes = [0; FILE_HEADER_LEN];
        let len = fill(&mut source, &mut bytes)?;
        if bytes.starts_with(&PCAPNG_MAGIC) {
            return Err(CaptureError::PcapNg);
        }
        let (_, header) =
            PcapHeader::from_slice(&bytes[..len]).map_err(|_| CaptureError::NotPcap)?;
        // The upper half may tell the length of a frame check sequence.
        let link_type = u32::from(header.datalink) & 0xffff;
        if link_type != u32::from(DataLink::ETHERNET) {
            return Err(CaptureError::LinkType(link_type));
        }
        let PcapHeader { endianness, ts_resolution: resolution, .. } = header;
        Ok(Capture { source, endianness, resolution, records: 0 })
    }

    /// Reads the next frame into `frame`, as much of it as was captured, and gives its time since
    /// the Unix epoch; `None` at the end.
    ///
    /// # Errors
    /// When the record is not whole or makes no sense; there is no reading on after that.
    pub fn next_frame(&mut self, frame: &mut Vec<u8>) -> Result<Option<Duration>, CaptureError> {
        let mut header = [0; RECORD_HEADER_LEN];
        let len = fill(&mut self.source, &mut header)?;
        if len == 0 {
            return Ok(None);
        }
        self.records += 1;
        if len < RECORD_HEADER_LEN {
            return Err(CaptureError::CutShort(self.records));
        }
        // Seconds, their fraction, bytes here, bytes there were.
        let (fields, _) = header.as_chunks::<4>();
        let [seconds, fraction, len] = [fields[0], fields[1], fields[2]].map(|field| {
            if self.endianness.is_big() {
                u32::from_be_bytes(field)
            } else {
                u32::from_le_bytes(field)
            }
        });
        if len as usize > FRAME_LEN_MAX {
            return Err(CaptureError::TooLong(self.records, len));
        }
        frame.clear();
        frame.resize(len as usize, 0);
        if fill(&mut self.source, frame)? < frame.len() {
            return Err(CaptureError::CutShort(self.records));
        }
        let nanos = match self.resolution {
            TsResolution::MicroSecond => fraction.checked_mul(1000),
            TsResolution::NanoSecond => Some(fraction),
        };
        match nanos {
            Some(nanos @ ..1_000_000_000) => Ok(Some(Duration::new(seconds.into(), nanos))),
            _ => Err(CaptureError::TimeStamp(self.records)),
        }
    }
}

/// A capture being written: Ethernet, nanoseconds, little-endian on every machine.
pub struct CaptureWriter<W: Write> {
    writer: PcapWriter<W>,
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(writer: W) -> io::Result<CaptureWriter<W>> {
        let header = PcapHeader {
            snaplen: SNAPLEN,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(writer, header).map_err(into_io)?;
        Ok(CaptureWriter { writer })
    }

    /// Writes a frame of at most [`FRAME_LEN_MAX`] bytes with its time since the Unix epoch.
    ///
    /// # Errors
    /// When it cannot be written, or its time lies beyond the year 2106.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.writer.write_packet(&PcapPacket::new(time, len, frame)).map_err(into_io)?;
        Ok(())
    }

    /// Flushes what is buffered.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        self.writer.into_writer().flush()
    }
}

const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
/// Type of a pcapng section header block, the same in either byte order.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// What tcpdump writes; more than [`FRAME_LEN_MAX`].
const SNAPLEN: u32 = 262_144;

/// Reads until `bytes` are full or the source ends; gives how many there are.
fn fill(source: &mut impl Read, bytes: &mut [u8]) -> Result<usize, CaptureError> {
    let mut len = 0;
    while len < bytes.len() {
        match source.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CaptureError::Read(error)),
        }
    }
    Ok(len)
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: [(Duration, &[u8]); 3] = [
        (Duration::new(1_700_000_000, 1_000), b"first"),
        (Duration::new(1_700_000_000, 999_999_000), b""),
        (Duration::new(u32::MAX as u64, 0), b"third"),
    ];

    /// The frames as the format describes it, written field by field.
    fn capture(endianness: Endianness, nanoseconds: bool) -> Vec<u8> {
        let word = |value: u32| match endianness {
            Endianness::Big => value.to_be_bytes(),
            Endianness::Little => value.to_le_bytes(),
        };
        let half = |value: u16| match endianness {
            Endianness::Big => value.to_be_bytes(),
            Endianness::Little => value.to_le_bytes(),
        };
        let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let mut bytes = word(magic).to_vec();
        bytes.extend(half(2));
        bytes.extend(half(4));
        for value in [0, 0, 65_535, 1] {
            bytes.extend(word(value));
        }
        for (time, frame) in FRAMES {
            let fraction = if nanoseconds { time.subsec_nanos() } else { time.subsec_micros() };
            let len = frame.len() as u32;
            // The frame was longer on the wire: that is no error.
            for value in [time.as_secs() as u32, fraction, len, len + 1000] {
                bytes.extend(word(value));
            }
            bytes.extend(frame);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Duration, Vec<u8>)>, CaptureError> {
        let mut capture = Capture::new(bytes)?;
        let (mut frames, mut frame) = (Vec::new(), Vec::new());
        while let Some(time) = capture.next_frame(&mut frame)? {
            frames.push((time, frame.clone()));
        }
        Ok(frames)
    }

    #[test]
    fn both_resolutions_in_both_byte_orders_read_the_same() {
        let expected = FRAMES.map(|(time, frame)| (time, frame.to_vec()));
        for endianness in [Endianness::Big, Endianness::Little] {
            for nanoseconds in [false, true] {
                assert_eq!(read(&capture(endianness, nanoseconds)).unwrap(), expected);
            }
        }
    }

    #[test]
    fn what_is_written_is_the_little_endian_nanosecond_format() {
        let mut written = Vec::new();
        let mut writer = CaptureWriter::new(&mut written).unwrap();
        for (time, frame) in FRAMES {
            writer.write(time, frame).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(written[..4], 0xa1b2_3c4d_u32.to_le_bytes());
        assert_eq!(read(&written).unwrap(), FRAMES.map(|(time, frame)| (time, frame.to_vec())));
    }

    #[test]
    fn the_largest_frame_is_written_and_read_and_a_larger_one_is_not() {
        let largest = vec![0xaa; FRAME_LEN_MAX];
        let mut written = Vec::new();
        CaptureWriter::new(&mut written).unwrap().write(Duration::ZERO, &largest).unwrap();
        assert_eq!(read(&written).unwrap(), [(Duration::ZERO, largest.clone())]);
        let mut longer = written.clone();
        longer[32..36].copy_from_slice(&(FRAME_LEN_MAX as u32 + 1).to_le_bytes());
        longer.push(0xaa);
        assert!(matches!(read(&longer), Err(CaptureError::TooLong(1, _))));
    }

    #[test]
    fn a_capture_cut_anywhere_says_so() {
        let whole = capture(Endianness::Little, true);
        let ends: Vec<usize> = FRAMES
            .iter()
            .scan(24, |end, (_, frame)| {
                let record = *end;
                *end += 16 + frame.len();
                Some(record)
            })
            .collect();
        for len in 0..whole.len() {
            let result = read(&whole[..len]);
            match ends.iter().position(|end| *end == len) {
                Some(records) => assert_eq!(result.unwrap().len(), records),
                None if len < 24 => assert!(matches!(result, Err(CaptureError::NotPcap))),
                None => {
                    let records = ends.iter().filter(|end| **end < len).count() as u64;
                    assert!(
                        matches!(result, Err(CaptureError::CutShort(record)) if record == records),
                        "{len}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_no_ethernet_pcap_is_refused_by_name() {
        let good = capture(Endianness::Little, false);
        let with = |offset: usize, bytes: &[u8]| {
            let mut patched = good.clone();
            patched[offset..offset + bytes.len()].copy_from_slice(bytes);
            read(&patched).map_err(|error| error.to_string())
        };
        assert_eq!(with(0, b"GET "), Err("not a pcap capture".to_owned()));
        assert!(with(0, &PCAPNG_MAGIC).is_err_and(|text| text.contains("editcap")));
        assert!(with(20, &[101]).is_err_and(|text| text.contains("link type 101")));
        assert_eq!(with(23, &[0x14]).map(|frames| frames.len()), Ok(3), "length of a check sum");
        let len = u32::MAX.to_le_bytes();
        assert!(with(24 + 8, &len).is_err_and(|text| text.contains("record 1 has 4294967295")));
        let fraction = 1_000_000_u32.to_le_bytes();
        assert!(with(24 + 4, &fraction).is_err_and(|text| text.contains("record 1 has a time")));
        assert!(with(24 + 4, &len).is_err_and(|text| text.contains("record 1 has a time")));
    }
}

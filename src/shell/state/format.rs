//! The bytes of a state file: a header, then records as `postcard` encodes them, back to back.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 4 | [`VERSION`] |
//! | 12 | 8 | when the records were true: milliseconds since 1970 |
//! | 20 | 8 | how many bytes follow the header |
//! | 28 | 8 | SipHash-1-3, without a key, of what follows the header and then of the 28 bytes before |
//!
//! Numbers are little-endian. Whatever changes how a [`Record`] is encoded (another field, another
//! order of states) must change [`VERSION`]; a test holds a file's bytes against that.
//!
//! Nothing is allocated by a number that a file contains. The checksum finds damage, not forgery:
//! what a sound file says is judged by [`Director::import`](crate::director::Director::import).

use core::hash::Hasher;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use siphasher::sip::SipHasher13;

use crate::director::state::Record;

/// What every state file begins with.
const MAGIC: [u8; 8] = *b"vipr st\n";
/// Of the header, and of everything a [`Record`] is made of.
const VERSION: u32 = 2;
const HEADER_LEN: usize = 36;
/// Where in the header the checksum is; it covers what is before.
const CHECKSUM_AT: usize = 28;

/// Larger files are refused unread. 2^24 connections, each of IPv6, are 0.7 GB.
pub(super) const FILE_LEN_MAX: u64 = 1 << 30;
/// The encoded length of a record is less than this: a real server's 256 ranges of ports take
/// 1.5 KB, up to 64 VIPs 1.4 KB, and its other fields 0.2 KB.
const RECORD_LEN_MAX: usize = 4096;
const BUFFER_LEN: usize = 64 << 10;

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub(in crate::shell) enum Unsound {
    #[error("it is no state file of vipr")]
    Foreign,
    #[error("it has format {0}, and this vipr reads format {VERSION}")]
    Version(u32),
    #[error("it is larger than {} MiB", FILE_LEN_MAX >> 20)]
    TooLarge,
    #[error("it is damaged: {found} bytes long instead of {expected}")]
    Length { found: u64, expected: u64 },
    #[error("it is damaged: its checksum is wrong")]
    Checksum,
    #[error("it is damaged: what is at byte {0} is no record")]
    Record(u64),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// A state file being written.
pub(super) struct Writer<W> {
    out: W,
    written_at: SystemTime,
    hasher: SipHasher13,
    body_len: u64,
    buffer: Box<[u8; BUFFER_LEN]>,
    buffered: usize,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file of what is true at `written_at`. Until [`Self::finish`] it is no sound file.
    pub fn new(mut out: W, written_at: SystemTime) -> io::Result<Writer<W>> {
        out.write_all(&[0; HEADER_LEN])?;
        Ok(Writer {
            out,
            written_at,
            hasher: SipHasher13::new(),
            body_len: 0,
            buffer: Box::new([0; BUFFER_LEN]),
            buffered: 0,
        })
    }

    pub fn push(&mut self, record: &Record) -> io::Result<()> {
        if BUFFER_LEN - self.buffered < RECORD_LEN_MAX {
            self.flush()?;
        }
        let room = &mut self.buffer[self.buffered..][..RECORD_LEN_MAX];
        let used = postcard::to_slice(record, room)
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        self.buffered += used.len();
        Ok(())
    }

    /// Ends the file: what was written to, and how many bytes there are now.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.flush()?;
        let header = header(self.written_at, self.body_len, self.hasher);
        self.out.rewind()?;
        self.out.write_all(&header)?;
        Ok((self.out, HEADER_LEN as u64 + self.body_len))
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &self.buffer[..self.buffered];
        self.hasher.write(bytes);
        self.body_len += bytes.len() as u64;
        self.out.write_all(bytes)?;
        self.buffered = 0;
        Ok(())
    }
}

/// A state file that was found sound from its first byte to its last.
pub(super) struct Sound<F> {
    file: F,
    body_len: u64,
    pub written_at: SystemTime,
}

impl<F: Read + Seek> Sound<F> {
    /// Reads a file of so many bytes through and checks everything about it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(mut file: F, len: u64) -> Result<Sound<F>, Unsound> {
        if len > FILE_LEN_MAX {
            return Err(Unsound::TooLarge);
        }
        let mut found = Vec::with_capacity(HEADER_LEN);
        file.by_ref().take(HEADER_LEN as u64).read_to_end(&mut found)?;
        if !found.starts_with(&MAGIC[..found.len().min(MAGIC.len())]) || found.is_empty() {
            return Err(Unsound::Foreign);
        }
        let Ok(found) = <[u8; HEADER_LEN]>::try_from(found) else {
            return Err(Unsound::Length { found: len, expected: HEADER_LEN as u64 });
        };
        let version = u32::from_le_bytes(at(&found, 8));
        if version != VERSION {
            return Err(Unsound::Version(version));
        }
        let written_at = UNIX_EPOCH + Duration::from_millis(u64::from_le_bytes(at(&found, 12)));
        let body_len = u64::from_le_bytes(at(&found, 20));
        let expected = body_len.saturating_add(HEADER_LEN as u64);
        if len != expected {
            return Err(Unsound::Length { found: len, expected });
        }
        let mut sound = Sound { file, body_len, written_at };
        if header(written_at, body_len, sound.hash()?) != found {
            return Err(Unsound::Checksum);
        }
        sound.records(|_| ())?;
        Ok(sound)
    }

    /// Shows the records.
    ///
    /// # Errors
    /// When the file can no longer be read, or is another by now.
    pub fn records(&mut self, mut visit: impl FnMut(Record)) -> Result<(), Unsound> {
        let mut body = self.body()?;
        let mut buffer = vec![0; BUFFER_LEN];
        let (mut start, mut end, mut position) = (0, 0, HEADER_LEN as u64);
        loop {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            let ended = loop {
                match body.read(&mut buffer[end..])? {
                    0 => break end < BUFFER_LEN,
                    len => end += len,
                }
            };
            while end - start >= RECORD_LEN_MAX || ended && start < end {
                let (record, rest) = postcard::take_from_bytes(&buffer[start..end])
                    .map_err(|_| Unsound::Record(position))?;
                position += (end - start - rest.len()) as u64;
                start = end - rest.len();
                visit(record);
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn hash(&mut self) -> Result<SipHasher13, Unsound> {
        let mut body = self.body()?;
        let mut hasher = SipHasher13::new();
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            match body.read(&mut buffer)? {
                0 => return Ok(hasher),
                len => hasher.write(&buffer[..len]),
            }
        }
    }

    fn body(&mut self) -> io::Result<io::Take<&mut F>> {
        self.file.seek(SeekFrom::Start(HEADER_LEN as u64))?;
        Ok(self.file.by_ref().take(self.body_len))
    }
}

/// The header of a body that was hashed.
fn header(written_at: SystemTime, body_len: u64, mut hasher: SipHasher13) -> [u8; HEADER_LEN] {
    let since_epoch = written_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let written_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&written_ms.to_le_bytes());
    header[20..28].copy_from_slice(&body_len.to_le_bytes());
    hasher.write(&header[..CHECKSUM_AT]);
    header[CHECKSUM_AT..].copy_from_slice(&hasher.finish().to_le_bytes());
    header
}

/// The bytes of a number in the header.
fn at<const LEN: usize>(header: &[u8; HEADER_LEN], offset: usize) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(&header[offset..offset + LEN]);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::config::snapshot::{Endpoint, PortRange, Ports, Protocol};
    use crate::config::{LISTEN_MAX, PORT_RANGES_MAX};
    use crate::director::connections::ConnectionState;
    use crate::director::state::{
        ConnectionRecord, NeighborRecord, RealServerRecord, WeightOverride,
    };
    use crate::wire::MacAddr;

    fn written_at() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_798_000_000_123)
    }

    fn file(records: &[Record]) -> Vec<u8> {
        let mut writer = Writer::new(Cursor::new(Vec::new()), written_at()).unwrap();
        for record in records {
            writer.push(record).unwrap();
        }
        let (out, len) = writer.finish().unwrap();
        let bytes = out.into_inner();
        assert_eq!(bytes.len() as u64, len);
        bytes
    }

    /// A file with a right header before any body at all.
    fn file_around(body: &[u8]) -> Vec<u8> {
        let mut hasher = SipHasher13::new();
        hasher.write(body);
        [&header(written_at(), body.len() as u64, hasher), body].concat()
    }

    fn read(bytes: &[u8]) -> Result<(SystemTime, Vec<Record>), Unsound> {
        let mut sound = Sound::check(Cursor::new(bytes), bytes.len() as u64)?;
        let mut records = Vec::new();
        sound.records(|record| records.push(record))?;
        Ok((sound.written_at, records))
    }

    fn connection(number: u32) -> Record {
        Record::Connection(ConnectionRecord {
            real_server: 0,
            endpoint: 0,
            client: (0x0a00_0000 + number).to_be_bytes().into(),
            client_port: 40_000,
            virtual_port: 80,
            state: ConnectionState::Established,
            proven: true,
            remaining_ms: 900_000,
            template: None,
        })
    }

    /// One of each kind, with all that can be absent present in one.
    fn samples() -> Vec<Record> {
        vec![
            Record::RealServer(RealServerRecord {
                listen: vec![Endpoint {
                    vip: [192, 0, 2, 10].into(),
                    protocol: Protocol::Tcp,
                    ports: Ports::Some(vec![PortRange { first: 80, last: 81 }]),
                }],
                address: [10, 0, 0, 11].into(),
                segment: "back".to_owned(),
                weight_override: Some(WeightOverride { weight: 0, configured: 300 }),
            }),
            Record::RealServer(RealServerRecord {
                listen: vec![Endpoint {
                    vip: [0x20; 16].into(),
                    protocol: Protocol::Udp,
                    ports: Ports::Any,
                }],
                address: [10, 0, 0, 12].into(),
                segment: "b".to_owned(),
                weight_override: None,
            }),
            Record::Neighbor(NeighborRecord {
                segment: "back".to_owned(),
                address: [10, 0, 0, 11].into(),
                mac: MacAddr([0x52, 0x54, 0, 0, 0, 0x11]),
            }),
            Record::Connection(ConnectionRecord {
                real_server: 0,
                endpoint: 0,
                client: [198, 51, 100, 0].into(),
                client_port: 0,
                virtual_port: 80,
                state: ConnectionState::Template,
                proven: true,
                remaining_ms: 0,
                template: None,
            }),
            Record::Connection(ConnectionRecord {
                real_server: 1,
                endpoint: 0,
                client: [0x21; 16].into(),
                client_port: 40_000,
                virtual_port: 53,
                state: ConnectionState::Udp,
                proven: false,
                remaining_ms: 300_000,
                template: Some(0),
            }),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let many: Vec<Record> = samples().into_iter().chain((0..50_000).map(connection)).collect();
        for records in [vec![], samples(), many] {
            let (time, found) = read(&file(&records)).unwrap();
            assert_eq!(time, written_at());
            assert_eq!(found, records);
        }
    }

    /// If this fails, files are written that a vipr of the same [`VERSION`] reads as something
    /// else: change the version with the bytes.
    #[test]
    fn the_bytes_of_version_2() {
        let expected = "\
            76697072 2073740a 02000000 7bbc26a1a2010000 8100000000000000 47a59bd03c362027 \
            00 01 00c000020a 00 01015051 000a00000b 046261636b 0100ac02 \
            00 01 0120202020202020202020202020202020 01 00 000a00000c 0162 00 \
            01 046261636b 000a00000b 1135323a35343a30303a30303a30303a3131 \
            02 00 00 00c6336400 00 50 0c 01 00 00 \
            02 01 00 0121212121212121212121212121212121 c0b802 35 0b 00 e0a712 0100";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&file(&samples())), expected.replace(' ', ""));

        use ConnectionState::*;
        let states = [
            None,
            Established,
            SynSent,
            SynRecv,
            FinWait,
            TimeWait,
            Close,
            CloseWait,
            LastAck,
            Listen,
            Synack,
            Udp,
            Template,
            SctpNone,
            SctpInit1,
            SctpInit,
            SctpCookieSent,
            SctpCookieReplied,
            SctpCookieWait,
            SctpCookie,
            SctpCookieEchoed,
            SctpEstablished,
            SctpShutdownSent,
            SctpShutdownReceived,
            SctpShutdownAckSent,
            SctpRejected,
            SctpClosed,
        ];
        for (number, state) in states.into_iter().enumerate() {
            let mut buffer = [0; 1];
            assert_eq!(postcard::to_slice(&state, &mut buffer).unwrap(), [number as u8]);
        }
        for (number, protocol) in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].iter().enumerate()
        {
            let mut buffer = [0; 1];
            assert_eq!(postcard::to_slice(protocol, &mut buffer).unwrap(), [number as u8]);
        }
    }

    #[test]
    fn a_file_cut_short_or_too_long_is_refused_wherever_that_is() {
        let whole = file(&samples());
        for len in 0..whole.len() {
            let refused = read(&whole[..len]);
            let foreign = len == 0;
            assert_eq!(matches!(refused, Err(Unsound::Foreign)), foreign, "{len} bytes");
            assert_eq!(matches!(refused, Err(Unsound::Length { .. })), !foreign, "{len} bytes");
        }
        for more in [1, 7, 5000] {
            let longer = [whole.as_slice(), &vec![0; more]].concat();
            assert!(matches!(read(&longer), Err(Unsound::Length { .. })), "{more} bytes more");
        }
        // Cut after its length was asked for.
        for len in HEADER_LEN..whole.len() {
            let cut = Sound::check(Cursor::new(&whole[..len]), whole.len() as u64);
            assert!(matches!(cut, Err(Unsound::Checksum)), "{len} bytes");
        }
    }

    #[test]
    fn a_file_with_any_bit_changed_is_refused() {
        let whole = file(&samples());
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                let refused = read(&damaged);
                let as_expected = match at {
                    0..8 => matches!(refused, Err(Unsound::Foreign)),
                    8..12 => matches!(refused, Err(Unsound::Version(_))),
                    20..28 => matches!(refused, Err(Unsound::Length { .. })),
                    _ => matches!(refused, Err(Unsound::Checksum)),
                };
                assert!(as_expected, "bit {bit} of byte {at}: {refused:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_unread() {
        let whole = file(&samples());
        let refused = Sound::check(Cursor::new(&whole), FILE_LEN_MAX + 1);
        assert!(matches!(refused, Err(Unsound::TooLarge)));
    }

    #[test]
    fn what_is_no_record_is_refused_though_the_checksum_is_right() {
        let mut buffer = [0; 64];
        let good = postcard::to_slice(&connection(1), &mut buffer).unwrap();
        let rows: [(&str, &[u8]); 6] = [
            ("no such kind", &[3]),
            ("half a record", &good[..good.len() - 1]),
            ("no such state", &[2, 0, 0, 1, 2, 3, 4, 0, 0, 13, 1, 0, 0]),
            ("a name longer than the file", &[1, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x']),
            ("more ports than bytes", &[0, 0, 1, 2, 3, 4, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]),
            ("a number without an end", &[2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ];
        for (what, bytes) in rows {
            for before in [0, 3, 20_000] {
                let body = [good.repeat(before).as_slice(), bytes].concat();
                let expected = (HEADER_LEN + before * good.len()) as u64;
                let refused = read(&file_around(&body));
                assert!(
                    matches!(refused, Err(Unsound::Record(at)) if at == expected),
                    "{what}: {refused:?}"
                );
            }
        }
        assert!(read(&file_around(good)).is_ok());
    }

    #[test]
    fn the_longest_record_fits() {
        let range = PortRange { first: u16::MAX, last: u16::MAX };
        let endpoint = Endpoint {
            vip: [0xff; 16].into(),
            protocol: Protocol::Sctp,
            ports: Ports::Some(vec![range; PORT_RANGES_MAX / LISTEN_MAX]),
        };
        let longest = Record::RealServer(RealServerRecord {
            listen: (0..LISTEN_MAX).map(|_| endpoint.clone()).collect(),
            address: [0xff; 16].into(),
            segment: "s".repeat(64),
            weight_override: Some(WeightOverride { weight: u32::MAX, configured: u32::MAX }),
        });
        let records = vec![longest; 100];
        assert_eq!(read(&file(&records)).unwrap().1, records);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            magic in any::<bool>(),
        ) {
            let bytes = if magic { [&MAGIC, bytes.as_slice()].concat() } else { bytes };
            prop_assert!(read(&bytes).is_err());
        }

        /// Whatever is read from a body is written again as records that mean the same.
        #[test]
        fn no_body_is_too_strange(body in prop::collection::vec(0u8..20, 0..60)) {
            if let Ok((_, records)) = read(&file_around(&body)) {
                prop_assert_eq!(read(&file(&records)).unwrap().1, records);
            }
        }
    }
}

//! Super-frames count as what they become on a wire: MTU rules and counters look at the segments.

use crate::wire::Offload;
use crate::wire::packet::Ip;

const TCP: u8 = 6;
const TCP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;

/// What a frame is on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnWire {
    pub packets: u32,
    /// Of all of them: IP headers and what is behind them.
    pub bytes: u64,
    /// Of the largest.
    pub largest: u32,
}

impl OnWire {
    /// `bytes` is the frame that `ip` was read from.
    #[inline]
    pub fn of(bytes: &[u8], ip: &Ip, offload: &Offload) -> OnWire {
        let len = ip.total_len;
        if offload.segment_size == 0 {
            return OnWire { packets: 1, bytes: u64::from(len), largest: len };
        }
        let start = ip.payload_start();
        let transport = match ip.protocol {
            TCP => bytes.get(start + 12).map_or(TCP_HEADER_LEN, |&byte| usize::from(byte >> 4) * 4),
            _ => UDP_HEADER_LEN,
        };
        let headers = (usize::from(ip.header_len) + transport) as u32;
        let payload = len.saturating_sub(headers);
        let packets = offload.segments(payload as usize);
        OnWire {
            packets,
            bytes: u64::from(len) + u64::from(packets - 1) * u64::from(headers),
            largest: len.min(headers + u32::from(offload.segment_size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::{Body, parse};
    use crate::wire::samples::TCP_SYN;

    #[test]
    fn a_super_frame_is_its_segments_and_any_other_frame_itself() {
        let parsed = parse(&TCP_SYN).unwrap();
        let Body::Ip(mut ip) = parsed.body else { panic!("{parsed:?}") };
        let headers = u32::from(ip.header_len) + u32::from(TCP_SYN[46] >> 4) * 4;
        let rows: [(u32, u16, u32, u32); 5] = [
            // Payload, segment size; packets, largest payload.
            (0, 0, 1, 0),
            (9000, 0, 1, 9000),
            (9000, 1448, 7, 1448),
            (1448, 1448, 1, 1448),
            (10, 1448, 1, 10),
        ];
        for (payload, segment_size, packets, largest) in rows {
            ip.total_len = headers + payload;
            let offload = Offload { segment_size, ..Offload::default() };
            let expected = OnWire {
                packets,
                bytes: u64::from(payload) + u64::from(packets * headers),
                largest: headers + largest,
            };
            assert_eq!(OnWire::of(&TCP_SYN, &ip, &offload), expected);
        }
    }
}

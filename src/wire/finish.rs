//! The work that a frame's sender left to others, done here: for ports that take nothing but
//! what a wire carries.
//!
//! No path of many frames: a port that takes offloads gets frames as they are.

use etherparse::checksum::Sum16BitWords;

use super::Offload;
use super::offload::Segmentation;

/// Why a frame cannot be finished: its headers are not what its offload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame with an offload that does not fit its headers")]
pub struct Unfinishable;

const ETHERNET_ADDRESSES_LEN: usize = 12;
const TPIDS: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
/// Bits of the TCP flags.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Gives `each` every frame that a wire would carry for this one.
///
/// # Errors
/// [`Unfinishable`]; `each` has then been given nothing.
pub fn finish(
    bytes: &mut [u8],
    offload: &Offload,
    mut each: impl FnMut(&[u8]),
) -> Result<(), Unfinishable> {
    if offload.segment_size == 0 {
        complete_checksum(bytes, offload)?;
        each(bytes);
        return Ok(());
    }
    let super_frame = SuperFrame::parse(bytes, offload).ok_or(Unfinishable)?;
    super_frame.cut(usize::from(offload.segment_size), each);
    Ok(())
}

/// Completes a checksum that is pending: its field is so far over the pseudo-header.
///
/// # Errors
/// [`Unfinishable`], when the field is outside the frame.
pub fn complete_checksum(bytes: &mut [u8], offload: &Offload) -> Result<(), Unfinishable> {
    if !offload.checksum_pending {
        return Ok(());
    }
    let covered = bytes.get_mut(usize::from(offload.checksum_start)..).ok_or(Unfinishable)?;
    let sum = never_zero(Sum16BitWords::new().add_slice(covered));
    let field = covered.get_mut(usize::from(offload.checksum_offset)..).ok_or(Unfinishable)?;
    *field.first_chunk_mut().ok_or(Unfinishable)? = sum;
    Ok(())
}

/// What an unfinished checksum would look like, if the frame has that: the field of a TCP segment or
/// datagram is exactly the sum of its pseudo-header.
///
/// One frame in 65,536 looks so by chance, and is right already; completing it gives the same again.
pub fn pending_checksum(bytes: &[u8]) -> Option<Offload> {
    let network = ETHERNET_ADDRESSES_LEN + 2;
    let half = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (transport, len, protocol, addresses) = match half(ETHERNET_ADDRESSES_LEN)? {
        0x0800 => {
            let header_len = usize::from(bytes.get(network)? & 0x0f) * 4;
            // A fragment has no checksum of its own.
            if half(network + 6)? & 0x3fff != 0 {
                return None;
            }
            let len = usize::from(half(network + 2)?).checked_sub(header_len)?;
            (network + header_len, len, *bytes.get(network + 9)?, network + 12..network + 20)
        }
        0x86dd => {
            let len = usize::from(half(network + 4)?);
            let protocol = *bytes.get(network + 6)?;
            (network + IPV6_HEADER_LEN, len, protocol, network + 8..network + 40)
        }
        _ => return None,
    };
    let offset = match protocol {
        TCP => 16,
        UDP => 6,
        _ => return None,
    };
    let pseudo = Sum16BitWords::new()
        .add_slice(bytes.get(addresses)?)
        .add_2bytes([0, protocol])
        .add_2bytes(u16::try_from(len).ok()?.to_be_bytes())
        .ones_complement();
    let field: [u8; 2] = *bytes.get(transport + offset..)?.first_chunk()?;
    (field == (!pseudo).to_ne_bytes()).then(|| Offload {
        checksum_pending: true,
        checksum_start: transport as u16,
        checksum_offset: offset as u16,
        ..Offload::default()
    })
}

/// A checksum of zero says that there is none (RFC 768); to TCP the two zeroes are the same.
fn never_zero(sum: Sum16BitWords) -> [u8; 2] {
    match sum.ones_complement() {
        0 => [0xff, 0xff],
        // The sum is kept in the machine's byte order.
        other => other.to_ne_bytes(),
    }
}

/// Where the parts of a super-frame are.
#[derive(Clone, Copy)]
struct SuperFrame<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    network: usize,
    transport: usize,
    is_ipv4: bool,
    protocol: u8,
}

impl<'a> SuperFrame<'a> {
    fn parse(bytes: &'a [u8], offload: &Offload) -> Option<SuperFrame<'a>> {
        let half = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let mut network = ETHERNET_ADDRESSES_LEN;
        // A provider's tag and a customer's.
        for _ in 0..2 {
            if TPIDS.contains(&half(network)?) {
                network += 4;
            }
        }
        network += 2;
        let first = *bytes.get(network)?;
        let is_ipv4 = first >> 4 == 4;
        let (transport, ip_end, protocol) = if is_ipv4 {
            let header_len = usize::from(first & 0x0f) * 4;
            let end = network + usize::from(half(network + 2)?);
            (network + header_len.max(20), end, *bytes.get(network + 9)?)
        } else {
            let end = network + IPV6_HEADER_LEN + usize::from(half(network + 4)?);
            let protocol = if offload.segmentation == Segmentation::Udp { UDP } else { TCP };
            // Behind extension headers, if there are some, where the checksum begins.
            let start = match offload.checksum_pending {
                true => usize::from(offload.checksum_start),
                false => network + IPV6_HEADER_LEN,
            };
            (start.max(network + IPV6_HEADER_LEN), end, protocol)
        };
        let header_len = match (protocol, offload.segmentation) {
            (TCP, Segmentation::Tcp4 | Segmentation::Tcp6) => {
                usize::from(*bytes.get(transport + 12)? >> 4) * 4
            }
            (UDP, Segmentation::Udp) => UDP_HEADER_LEN,
            _ => return None,
        };
        let least = if protocol == TCP { 20 } else { UDP_HEADER_LEN };
        let start = transport + header_len.max(least);
        let payload = bytes.get(start..ip_end)?;
        let headers = &bytes[..start];
        Some(SuperFrame { headers, payload, network, transport, is_ipv4, protocol })
    }

    fn cut(&self, segment_size: usize, mut each: impl FnMut(&[u8])) {
        let mut frame = Vec::with_capacity(self.headers.len() + segment_size);
        let count = self.payload.len().div_ceil(segment_size).max(1);
        for index in 0..count {
            let rest = &self.payload[index * segment_size..];
            frame.clear();
            frame.extend_from_slice(self.headers);
            frame.extend_from_slice(&rest[..rest.len().min(segment_size)]);
            self.number_network(&mut frame, index);
            match self.protocol {
                TCP => self.number_tcp(&mut frame, index, index * segment_size, index + 1 == count),
                _ => {
                    let len = (frame.len() - self.transport) as u16;
                    frame[self.transport + 4..][..2].copy_from_slice(&len.to_be_bytes());
                }
            }
            self.sum(&mut frame);
            each(&frame);
        }
    }

    /// Length, and for IPv4 identification and checksum.
    fn number_network(&self, frame: &mut [u8], index: usize) {
        let header = &mut frame[self.network..];
        if !self.is_ipv4 {
            let len = (header.len() - IPV6_HEADER_LEN) as u16;
            header[4..6].copy_from_slice(&len.to_be_bytes());
            return;
        }
        let len = header.len() as u16;
        header[2..4].copy_from_slice(&len.to_be_bytes());
        let first = u16::from_be_bytes([header[4], header[5]]);
        header[4..6].copy_from_slice(&first.wrapping_add(index as u16).to_be_bytes());
        header[10..12].fill(0);
        let header_len = self.transport - self.network;
        let sum = Sum16BitWords::new().add_slice(&header[..header_len]).ones_complement();
        header[10..12].copy_from_slice(&sum.to_ne_bytes());
    }

    /// Sequence number and flags: what ends the data is said with the last of it, and that the
    /// congestion window was reduced with the first.
    fn number_tcp(&self, frame: &mut [u8], index: usize, offset: usize, is_last: bool) {
        let Some(header) = frame[self.transport..].first_chunk_mut::<20>() else { return };
        let first = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        header[4..8].copy_from_slice(&first.wrapping_add(offset as u32).to_be_bytes());
        if !is_last {
            header[13] &= !(FIN | PSH);
        }
        if index > 0 {
            header[13] &= !CWR;
        }
    }

    /// The transport checksum, over pseudo-header and all.
    fn sum(&self, frame: &mut [u8]) {
        let field = self.transport + if self.protocol == TCP { 16 } else { 6 };
        let addresses = if self.is_ipv4 { 12..20 } else { 8..40 };
        frame[field..field + 2].fill(0);
        let len = (frame.len() - self.transport) as u16;
        let sum = Sum16BitWords::new()
            .add_slice(&frame[self.network..][addresses])
            .add_2bytes([0, self.protocol])
            .add_2bytes(len.to_be_bytes())
            .add_slice(&frame[self.transport..]);
        frame[field..field + 2].copy_from_slice(&never_zero(sum));
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    const ETHERNET: ([u8; 6], [u8; 6]) = ([2; 6], [4; 6]);

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 % 251) as u8).collect()
    }

    fn tcp(ipv6: bool, vlan: bool, len: usize) -> (Vec<u8>, Offload) {
        let ethernet = PacketBuilder::ethernet2(ETHERNET.0, ETHERNET.1);
        let tagged = PacketBuilder::ethernet2(ETHERNET.0, ETHERNET.1)
            .single_vlan(etherparse::VlanId::try_new(5).unwrap());
        let builder = match (ipv6, vlan) {
            (false, false) => ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            (true, false) => ethernet.ipv6([1; 16], [2; 16], 64),
            (false, true) => tagged.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            (true, true) => tagged.ipv6([1; 16], [2; 16], 64),
        };
        let builder = builder.tcp(1000, 80, u32::MAX - 1000, 4000).ack(7).psh().fin().cwr();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &payload(len)).unwrap();
        let start = 14 + if vlan { 4 } else { 0 } + if ipv6 { 40 } else { 20 };
        let offload = Offload {
            checksum_pending: true,
            segmentation: if ipv6 { Segmentation::Tcp6 } else { Segmentation::Tcp4 },
            segment_size: 1400,
            headers_len: start + 20,
            checksum_start: start,
            checksum_offset: 16,
            ..Offload::default()
        };
        (bytes, offload)
    }

    fn finished(bytes: &[u8], offload: &Offload) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        finish(&mut bytes.to_vec(), offload, |frame| frames.push(frame.to_vec())).unwrap();
        frames
    }

    /// Checks lengths and every checksum by another's arithmetic, and gives TCP's header and payload.
    fn checked(frame: &[u8]) -> (Option<etherparse::TcpHeader>, Vec<u8>) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let net = packet.net.unwrap();
        if let NetSlice::Ipv4(ip) = &net {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(
                usize::from(header.total_len),
                frame.len() - 14 - packet.link_exts.len() * 4
            );
        }
        match (net, packet.transport.unwrap()) {
            (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
                let sum = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
                assert_eq!(sum.unwrap(), tcp.checksum());
                (Some(tcp.to_header()), tcp.payload().to_vec())
            }
            (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
                let header = ip.header().to_header();
                let sum = tcp.to_header().calc_checksum_ipv6(&header, tcp.payload());
                assert_eq!(sum.unwrap(), tcp.checksum());
                (Some(tcp.to_header()), tcp.payload().to_vec())
            }
            (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
                let header = ip.header().to_header();
                let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
                assert_eq!(sum.unwrap(), udp.checksum());
                (None, udp.payload().to_vec())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tcp_is_cut_as_a_card_would_cut_it() {
        for (ipv6, vlan, len) in
            [(false, false, 5000), (true, false, 5000), (false, true, 4200), (true, true, 1)]
        {
            let (bytes, offload) = tcp(ipv6, vlan, len);
            let frames = finished(&bytes, &offload);
            assert_eq!(frames.len(), len.div_ceil(1400));
            let mut whole = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                let (header, part) = checked(frame);
                let (header, is_last) = (header.unwrap(), index + 1 == frames.len());
                let sequence = (u32::MAX - 1000).wrapping_add(whole.len() as u32);
                assert_eq!(header.sequence_number, sequence);
                assert_eq!((header.fin, header.psh, header.cwr), (is_last, is_last, index == 0));
                assert_eq!(frame[..12], bytes[..12]);
                whole.extend(part);
            }
            assert_eq!(whole, payload(len));
        }
    }

    #[test]
    fn each_ipv4_segment_has_an_identification_of_its_own() {
        let (bytes, offload) = tcp(false, false, 4000);
        let ids: Vec<u16> = finished(&bytes, &offload)
            .iter()
            .map(|frame| u16::from_be_bytes([frame[18], frame[19]]))
            .collect();
        assert_eq!(ids, [ids[0], ids[0] + 1, ids[0] + 2]);
    }

    #[test]
    fn datagrams_are_cut_each_with_its_header() {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(ETHERNET.0, ETHERNET.1)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1000, 53)
            .write(&mut bytes, &payload(2500))
            .unwrap();
        let offload = Offload {
            checksum_pending: true,
            segmentation: Segmentation::Udp,
            segment_size: 1000,
            checksum_start: 34,
            checksum_offset: 6,
            ..Offload::default()
        };
        let parts: Vec<Vec<u8>> =
            finished(&bytes, &offload).iter().map(|frame| checked(frame).1).collect();
        let lens: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(lens, [1000, 1000, 500]);
        assert_eq!(parts.concat(), payload(2500));
    }

    #[test]
    fn a_pending_checksum_is_completed_and_a_complete_one_left() {
        let (mut bytes, offload) = tcp(false, false, 100);
        let complete = bytes.clone();
        let offload = Offload { segment_size: 0, segmentation: Segmentation::None, ..offload };
        // What a sender leaves: the sum of the pseudo-header.
        let pseudo = Sum16BitWords::new()
            .add_slice(&bytes[26..34])
            .add_2bytes([0, 6])
            .add_2bytes(120_u16.to_be_bytes());
        bytes[50..52].copy_from_slice(&(!pseudo.ones_complement()).to_ne_bytes());
        assert_eq!(finished(&bytes, &offload), std::slice::from_ref(&complete));
        // It shows without a word of the sender.
        let seen = pending_checksum(&bytes).expect("it is pending");
        assert_eq!(seen, Offload { headers_len: 0, ..offload });
        assert_eq!(pending_checksum(&complete), None);
        for len in 0..52 {
            assert_eq!(pending_checksum(&bytes[..len]), None, "{len}");
        }
        assert_eq!(finished(&complete, &Offload::default()), [complete]);
    }

    #[test]
    fn what_does_not_fit_its_offload_is_refused_whatever_it_is() {
        let (bytes, offload) = tcp(false, false, 3000);
        for len in 0..bytes.len() {
            let result = finish(&mut bytes[..len].to_vec(), &offload, |_| panic!("{len}"));
            assert_eq!(result, Err(Unfinishable), "{len}");
        }
        let outside = Offload { segment_size: 0, checksum_start: 9999, ..offload };
        assert_eq!(finish(&mut bytes.clone(), &outside, |_| ()), Err(Unfinishable));
        let udp = Offload { segmentation: Segmentation::Udp, ..offload };
        assert_eq!(finish(&mut bytes.clone(), &udp, |_| ()), Err(Unfinishable));
    }
}

//! The flow that an ICMP error is about, read from the packet it quotes.

use core::net::IpAddr;

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6Header, Ipv6HeaderSlice};

use super::icmp;
use super::ipv6::Extensions;
use super::packet::{Ip, Transport};

/// The flow of a quoted packet.
///
/// The quoted packet went from `source` to `destination`; in direct routing the real server
/// answers with the VIP as its source, so for an error about a reply `source` is the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedFlow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Reads the flow quoted by an ICMP error (RFC 792: the IP header and 8 bytes are enough;
/// RFC 4443 quotes more, and so much is enough of it).
///
/// `None` for ICMP that is no error (or of a type nobody assigned, whose layout is unknown), for
/// a quotation that is cut short or of a later fragment, and for protocols without ports. The
/// message's checksum is left to whoever the message is for.
pub fn quoted_flow(frame: &[u8], packet: &Ip) -> Option<QuotedFlow> {
    let (source, destination, protocol, ports) = quoted(frame, packet)?;
    match protocol {
        IpNumber::TCP | IpNumber::UDP | IpNumber::SCTP => Some(QuotedFlow {
            source,
            destination,
            protocol: protocol.0,
            source_port: u16::from_be_bytes([ports[0], ports[1]]),
            destination_port: u16::from_be_bytes([ports[2], ports[3]]),
        }),
        _ => None,
    }
}

/// An echo request that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedEcho {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub identifier: u16,
}

/// Reads the echo request quoted by an ICMP error; `None` under the same conditions as
/// [`quoted_flow`], and for anything else.
pub fn quoted_echo(frame: &[u8], packet: &Ip) -> Option<QuotedEcho> {
    let (source, destination, protocol, echo) = quoted(frame, packet)?;
    let request = match protocol {
        IpNumber::ICMP if source.is_ipv4() => icmp::ECHO_REQUEST,
        IpNumber::IPV6_ICMP if source.is_ipv6() => icmp::v6::ECHO_REQUEST,
        _ => return None,
    };
    let identifier = u16::from_be_bytes([echo[4], echo[5]]);
    (echo[0] == request).then_some(QuotedEcho { source, destination, identifier })
}

/// The ends, the protocol and the first bytes of the payload of the quoted packet.
fn quoted(
    frame: &[u8],
    packet: &Ip,
) -> Option<(IpAddr, IpAddr, IpNumber, [u8; QUOTED_PAYLOAD_MIN])> {
    let Transport::Icmp { kind, .. } = packet.transport else { return None };
    if packet.fragment_offset != 0 || !icmp::quotes_packet(packet.is_ipv6(), kind) {
        return None;
    }
    let quoted = frame.get(packet.payload_start()..packet.end())?.get(icmp::HEADER_LEN..)?;
    let (source, destination, protocol, transport) =
        if packet.is_ipv6() { read_ipv6(quoted)? } else { read_ipv4(quoted)? };
    Some((source, destination, protocol, *transport.first_chunk()?))
}

/// Bytes of the quoted packet's payload that every ICMP error carries (RFC 792).
const QUOTED_PAYLOAD_MIN: usize = 8;

type Quoted<'a> = (IpAddr, IpAddr, IpNumber, &'a [u8]);

fn read_ipv4(quoted: &[u8]) -> Option<Quoted<'_>> {
    let header = Ipv4HeaderSlice::from_slice(quoted).ok()?;
    if header.fragments_offset().value() != 0 {
        return None;
    }
    let transport = quoted.get(header.slice().len()..)?;
    Some((
        IpAddr::V4(header.source_addr()),
        IpAddr::V4(header.destination_addr()),
        header.protocol(),
        transport,
    ))
}

fn read_ipv6(quoted: &[u8]) -> Option<Quoted<'_>> {
    let header = Ipv6HeaderSlice::from_slice(quoted).ok()?;
    let payload = quoted.get(Ipv6Header::LEN..)?;
    let found = Extensions::walk(header.next_header(), payload).ok()?;
    if found.route.is_some() || found.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    Some((
        IpAddr::V6(header.source_addr()),
        IpAddr::V6(header.destination_addr()),
        found.protocol,
        payload.get(found.len..)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    #[test]
    fn an_icmp_error_tells_the_flow_it_quotes() {
        type Row = (&'static [u8], usize, (u8, u16, u16));
        let rows: [Row; 3] = [
            (&TCP_SYN[14..], 28, (6, 40000, 80)),
            (&TCP_DATA_WITH_IP_OPTIONS[14..], 32, (6, 40000, 80)),
            (&UDP[14..], 28, (17, 5353, 53)),
        ];
        for (quote, enough, (protocol, source_port, destination_port)) in rows {
            let flow = QuotedFlow {
                source: CLIENT.into(),
                destination: VIP.into(),
                protocol,
                source_port,
                destination_port,
            };
            for len in 0..=quote.len() {
                let frame = error_quoting(icmp::DESTINATION_UNREACHABLE, &quote[..len]);
                let expected = (len >= enough).then_some(flow);
                assert_eq!(quoted_flow(&frame, &ip_of(&frame)), expected, "{len} bytes");
            }
        }
        let sctp = error_quoting(icmp::TIME_EXCEEDED, &SCTP_INIT[14..]);
        assert_eq!(quoted_flow(&sctp, &ip_of(&sctp)).map(|flow| flow.protocol), Some(132));
    }

    #[test]
    fn an_icmp_error_tells_the_echo_request_it_quotes_and_nothing_of_a_reply() {
        for (quote, enough, frame) in [
            (&ECHO[14..], 28, error_quoting as fn(u8, &[u8]) -> Vec<u8>),
            (&ECHO_V6[14..], 48, error_quoting_v6),
        ] {
            let is_v4 = enough == 28;
            let kind = if is_v4 { icmp::DESTINATION_UNREACHABLE } else { icmp::v6::PACKET_TOO_BIG };
            let at = enough - 4;
            let identifier = u16::from_be_bytes([quote[at], quote[at + 1]]);
            for len in 0..=quote.len() {
                let frame = frame(kind, &quote[..len]);
                let found = quoted_echo(&frame, &ip_of(&frame)).map(|echo| echo.identifier);
                assert_eq!(found, (len >= enough).then_some(identifier), "{len} bytes");
            }
            let mut reply = quote.to_vec();
            reply[enough - 8] = if is_v4 { icmp::ECHO_REPLY } else { icmp::v6::ECHO_REPLY };
            let frame = frame(kind, &reply);
            assert_eq!(quoted_echo(&frame, &ip_of(&frame)), None);
        }
    }

    #[test]
    fn what_quotes_no_flow_tells_none() {
        let later = patched(&TCP_SYN, &[(20, &[0, 1])]);
        let rows: [(&str, u8, &[u8]); 6] = [
            ("an echo reply", icmp::ECHO_REPLY, &TCP_SYN[14..]),
            ("an echo request", icmp::ECHO_REQUEST, &TCP_SYN[14..]),
            ("a type nobody assigned", 7, &TCP_SYN[14..]),
            ("a quoted later fragment", icmp::DESTINATION_UNREACHABLE, &later[14..]),
            ("a quoted echo request", icmp::DESTINATION_UNREACHABLE, &ECHO[14..]),
            ("no IPv4 quoted", icmp::DESTINATION_UNREACHABLE, &TCP_SYN),
        ];
        for (what, kind, quote) in rows {
            let frame = error_quoting(kind, quote);
            assert_eq!(quoted_flow(&frame, &ip_of(&frame)), None, "{what}");
        }
        assert_eq!(quoted_flow(&TCP_SYN, &ip_of(&TCP_SYN)), None, "TCP");
        for frame in [&error_quoting(icmp::ECHO_REPLY, &ECHO[14..]), &TCP_SYN[..], &ECHO] {
            assert_eq!(quoted_echo(frame, &ip_of(frame)), None);
        }
        let frame = error_quoting(icmp::DESTINATION_UNREACHABLE, &TCP_SYN[14..]);
        assert_eq!(quoted_echo(&frame, &ip_of(&frame)), None, "TCP");
        assert_eq!(quoted_flow(&frame[..frame.len() - 1], &ip_of(&frame)), None, "another frame");
    }
}

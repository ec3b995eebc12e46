//! IPv6 (RFC 8200): the fixed header, and the walk over extension headers to what they precede.

use core::net::{IpAddr, Ipv6Addr};

use etherparse::{IpNumber, Ipv6Header, Ipv6HeaderSlice};

use super::MacAddr;
use super::frame::ETHERNET_HEADER_LEN;
use super::packet::{Body, Ip, Malformed, Transport, parse_transport};

/// Extension headers read of one packet, at most: one more than RFC 8200, 4.1 has a place for.
pub const EXTENSIONS_MAX: usize = 8;

/// Reads an IPv6 header and everything up to the transport header.
///
/// # Errors
/// [`Malformed::Ipv6Route`] when a routing header has a way still to go: then the destination is
/// not the one the packet is for, and no host follows it (RFC 5095).
pub(super) fn read(bytes: &[u8], body: &mut Body) -> Result<(), Malformed> {
    match read_to(bytes, body)? {
        None => Ok(()),
        Some(_) => Err(Malformed::Ipv6Route),
    }
}

/// The packet in a frame that [`Malformed::Ipv6Route`] was said of, and where its routing type is,
/// in bytes from the start of its IPv6 header: what its sender is to be told (RFC 8200, 4.4).
pub fn unfollowed_route(frame: &[u8]) -> Option<(Ip, u16)> {
    let mut body = Body::Other(0);
    let route = read_to(frame.get(ETHERNET_HEADER_LEN..)?, &mut body).ok()??;
    match body {
        Body::Ip(ip) => Some((ip, route)),
        _ => None,
    }
}

/// The same; gives the place of the routing type that nobody follows.
#[inline]
fn read_to(bytes: &[u8], body: &mut Body) -> Result<Option<u16>, Malformed> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|_| Malformed::Ipv6Header)?;
    let total_len = Ipv6Header::LEN + usize::from(header.payload_length());
    let payload = bytes.get(Ipv6Header::LEN..total_len).ok_or(Malformed::Ipv6Header)?;
    let found = Extensions::walk(header.next_header(), payload)?;
    let Fragment { identification, offset, more } = found.fragment.unwrap_or_default();
    let rest = payload.get(found.len..).ok_or(Malformed::Ipv6Extension)?;
    let transport = if offset == 0 {
        parse_transport(found.protocol, IpNumber::IPV6_ICMP, rest, more)?
    } else {
        Transport::LaterFragment
    };
    // What every fragment but the last carries, and where it ends (RFC 8200, 4.5).
    if more && !rest.len().is_multiple_of(8)
        || usize::from(offset) + rest.len() > usize::from(u16::MAX)
    {
        return Err(Malformed::Ipv6Extension);
    }
    *body = Body::Ip(Ip {
        source: IpAddr::V6(Ipv6Addr::from(header.source())),
        destination: IpAddr::V6(Ipv6Addr::from(header.destination())),
        protocol: found.protocol.0,
        // Eight headers of at most 2048 bytes.
        header_len: (Ipv6Header::LEN + found.len) as u16,
        total_len: total_len as u32,
        identification,
        dont_fragment: true,
        more_fragments: more,
        fragment_offset: offset,
        hop_limit: header.hop_limit(),
        transport,
    });
    Ok(found.route.map(|at| Ipv6Header::LEN as u16 + at))
}

/// The group that all who have this address listen to (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(SOLICITED_NODE | address.to_bits() & 0xff_ffff)
}

/// Whether an address is such a group.
pub fn is_solicited_node(address: Ipv6Addr) -> bool {
    address.to_bits() >> 24 == SOLICITED_NODE >> 24
}

/// ff02::1:ff00:0.
const SOLICITED_NODE: u128 = 0xff02 << 112 | 0x0001_ff00_0000;

/// The MAC of a group (RFC 2464, 7).
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// Whether frames to this MAC are for all stations, or for those with some address.
pub fn is_discovery_mac(mac: MacAddr) -> bool {
    matches!(mac.0, [0x33, 0x33, 0xff, _, _, _] | [0x33, 0x33, 0, 0, 0, 1])
}

/// The link-local address that a station makes of its MAC (RFC 4291, 2.5.6 and appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(interface))
}

/// Whether an address means something on its segment only: fe80::/10.
pub fn is_link_local(address: Ipv6Addr) -> bool {
    address.to_bits() >> 118 == 0xfe80 >> 6
}

/// Where a routing header has its type (RFC 8200, 4.4).
const ROUTING_TYPE_AT: u16 = 2;

/// What a fragment header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    pub identification: u32,
    /// In bytes.
    pub offset: u16,
    pub more: bool,
}

/// What the extension headers of a packet come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extensions {
    /// What follows them.
    pub protocol: IpNumber,
    /// Their bytes.
    pub len: usize,
    pub fragment: Option<Fragment>,
    /// Where the type of the first routing header is that has a way still to go.
    pub route: Option<u16>,
}

impl Extensions {
    /// Walks over the extension headers at the start of `bytes`, of which the first is a `next`.
    ///
    /// ESP and "no next header" end the walk, and so does the fragment header of a fragment that
    /// is not the first: what follows it is the middle of something.
    ///
    /// # Errors
    /// [`Malformed::Ipv6Extension`] when one is cut short, options for every hop are not in front,
    /// or a packet is a fragment twice over. [`Malformed::Ipv6ExtensionsTooMany`] beyond [`EXTENSIONS_MAX`].
    #[inline]
    pub fn walk(next: IpNumber, bytes: &[u8]) -> Result<Extensions, Malformed> {
        let mut found = Extensions { protocol: next, len: 0, fragment: None, route: None };
        for count in 0..=EXTENSIONS_MAX {
            let unit = match found.protocol {
                IpNumber::IPV6_HEADER_HOP_BY_HOP if count > 0 => {
                    return Err(Malformed::Ipv6Extension);
                }
                IpNumber::IPV6_HEADER_HOP_BY_HOP
                | IpNumber::IPV6_DESTINATION_OPTIONS
                | IpNumber::IPV6_ROUTE_HEADER => 8,
                IpNumber::IPV6_FRAGMENTATION_HEADER => 0,
                IpNumber::AUTHENTICATION_HEADER => 4,
                _ => return Ok(found),
            };
            if count == EXTENSIONS_MAX {
                break;
            }
            let is_route = found.protocol == IpNumber::IPV6_ROUTE_HEADER;
            let rest = bytes.get(found.len..).ok_or(Malformed::Ipv6Extension)?;
            let header = rest.first_chunk::<8>().ok_or(Malformed::Ipv6Extension)?;
            let len = match unit {
                0 => header.len(),
                // RFC 4302, 2.2: in words of four bytes, less two.
                4 => (usize::from(header[1]) + 2) * 4,
                // RFC 8200, 4: in words of eight bytes, less one.
                _ => (usize::from(header[1]) + 1) * 8,
            };
            if rest.len() < len {
                return Err(Malformed::Ipv6Extension);
            }
            if is_route && header[3] != 0 && found.route.is_none() {
                found.route = Some(found.len as u16 + ROUTING_TYPE_AT);
            }
            found.protocol = IpNumber(header[0]);
            found.len += len;
            if unit == 0 {
                if found.fragment.is_some() {
                    return Err(Malformed::Ipv6Extension);
                }
                let fragment = Fragment::read(header);
                found.fragment = Some(fragment);
                if fragment.offset != 0 {
                    return Ok(found);
                }
            }
        }
        Err(Malformed::Ipv6ExtensionsTooMany)
    }
}

impl Fragment {
    fn read(header: &[u8; 8]) -> Fragment {
        let [_, _, high, low, a, b, c, d] = *header;
        let offset_and_flags = u16::from_be_bytes([high, low]);
        Fragment {
            identification: u32::from_be_bytes([a, b, c, d]),
            // Thirteen bits in units of eight bytes: the value as it stands, less the flags.
            offset: offset_and_flags & !7,
            more: offset_and_flags & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::{TcpFlags, parse as parse_frame};
    use super::super::samples::*;
    use super::*;

    const FRAGMENT: u8 = 44;
    const SYN: Transport =
        Transport::Tcp { source_port: 40000, destination_port: 80, flags: TcpFlags(TcpFlags::SYN) };

    /// [`TCP_SYN_V6`] with `extensions` before its TCP header, of which the first is a `next`.
    fn behind(next: u8, extensions: &[u8]) -> Vec<u8> {
        let mut frame = TCP_SYN_V6[..54].to_vec();
        frame.extend_from_slice(extensions);
        frame.extend_from_slice(&TCP_SYN_V6[54..]);
        let len = (frame.len() - 54) as u16;
        patched(&frame, &[(20, &[next]), (18, &len.to_be_bytes())])
    }

    fn read(frame: &[u8]) -> Result<Ip, Malformed> {
        parse_frame(frame).map(|packet| match packet.body {
            Body::Ip(ip) => ip,
            other => panic!("no IP: {other:?}"),
        })
    }

    #[test]
    fn a_tcp_syn_is_read_field_by_field() {
        let expected = Ip {
            source: CLIENT_V6.into(),
            destination: VIP_V6.into(),
            protocol: 6,
            header_len: 40,
            total_len: 60,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            hop_limit: 64,
            transport: SYN,
        };
        assert_eq!(read(&TCP_SYN_V6), Ok(expected));
        assert_eq!((expected.payload_start(), expected.end()), (54, 74));
    }

    #[test]
    fn extension_headers_are_walked_over() {
        let ip = ip_of(&TCP_DATA_BEHIND_EXTENSIONS);
        let flags = TcpFlags(TcpFlags::PSH | TcpFlags::ACK);
        let tcp = Transport::Tcp { source_port: 40000, destination_port: 80, flags };
        assert_eq!((ip.transport, ip.protocol, ip.header_len), (tcp, 6, 88));
        assert_eq!((ip.identification, ip.is_fragment()), (0xdead_beef, false), "atomic");
        let udp = Transport::Udp { source_port: 5353, destination_port: 53 };
        assert_eq!(ip_of(&UDP_V6).transport, udp);
        assert_eq!(ip_of(&ECHO_V6).transport, Transport::Icmp { kind: 128, code: 0 });
    }

    #[test]
    fn the_walk_ends_at_what_is_no_extension_header() {
        for (next, protocol) in [(50, 50), (59, 59), (47, 47), (135, 135), (1, 1)] {
            let ip = ip_of(&behind(next, &[]));
            assert_eq!((ip.transport, ip.protocol), (Transport::Other, protocol));
        }
        let frame = patched(&TCP_SYN_V6, &[(18, &[0, 0]), (20, &[59])]);
        assert_eq!(ip_of(&frame).total_len, 40, "a packet may be nothing but its header");
        let in_ipv4 = patched(&ECHO, &[(23, &[58])]);
        assert_eq!(ip_of(&in_ipv4).transport, Transport::Other, "ICMPv6 in IPv4");
    }

    #[test]
    fn as_many_extension_headers_as_the_limit_and_no_more() {
        let options = |count| [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        for count in 1..=EXTENSIONS_MAX + 1 {
            let mut extensions = options(count);
            let last = extensions.len() - 8;
            extensions[last] = 6;
            let read = read(&behind(60, &extensions)).map(|ip| ip.transport);
            let too_many = Err(Malformed::Ipv6ExtensionsTooMany);
            assert_eq!(read, if count > EXTENSIONS_MAX { too_many } else { Ok(SYN) }, "{count}");
        }
    }

    #[test]
    fn fragments_say_which_and_where() {
        type Row = (&'static str, [u8; 2], (u16, bool, Transport));
        let rows: [Row; 4] = [
            ("atomic", [0, 0], (0, false, SYN)),
            ("reserved bits count for nothing", [0, 6], (0, false, SYN)),
            ("last", [0, 8], (8, false, Transport::LaterFragment)),
            ("as far as it goes", [0xff, 0xe8], (0xffe8, false, Transport::LaterFragment)),
        ];
        for (what, [high, low], expected) in rows {
            let ip = ip_of(&behind(FRAGMENT, &[6, 0, high, low, 0, 0, 0, 9]));
            assert_eq!((ip.fragment_offset, ip.more_fragments, ip.transport), expected, "{what}");
            assert_eq!((ip.identification, ip.header_len), (9, 48), "{what}");
        }
        let mut whole = behind(FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 9]);
        whole.extend_from_slice(&[0; 4]);
        let whole = patched(&whole, &[(18, &[0, 32])]);
        assert_eq!(ip_of(&whole).transport, SYN, "the first of several");
        assert!(ip_of(&whole).is_fragment());
        let options = ip_of(&behind(FRAGMENT, &[60, 0, 0, 8, 0, 0, 0, 9]));
        assert_eq!(options.transport, Transport::LaterFragment, "nothing is read of its middle");
    }

    #[test]
    fn a_route_to_follow_is_found_wherever_it_is() {
        let done = [43, 0, 4, 0, 0, 0, 0, 0];
        let to_go = [6, 0, 4, 1, 0, 0, 0, 0];
        let rows: [(&str, Vec<u8>, Option<u16>); 4] = [
            ("none", TCP_SYN_V6.to_vec(), None),
            ("one at its end", behind(43, &[6, 0, 4, 0, 0, 0, 0, 0]), None),
            ("the first header", behind(43, &to_go), Some(42)),
            ("behind one at its end", behind(43, &[done, to_go].concat()), Some(50)),
        ];
        for (what, frame, expected) in rows {
            let found = unfollowed_route(&frame);
            assert_eq!(found.map(|(_, at)| at), expected, "{what}");
            let is_refused = read(&frame) == Err(Malformed::Ipv6Route);
            assert_eq!(is_refused, expected.is_some(), "{what}");
            if let Some((ip, _)) = found {
                assert_eq!((ip.transport, ip.source), (SYN, CLIENT_V6.into()), "{what}");
            }
        }
        assert_eq!(unfollowed_route(&TCP_SYN_V6[..50]), None);
    }

    #[test]
    fn each_lying_field_is_named() {
        use Malformed::{Ipv6Extension, Ipv6Header};
        let rows: &[(&str, Vec<u8>, Malformed)] = &[
            ("version 4", patched(&TCP_SYN_V6, &[(14, &[0x40])]), Ipv6Header),
            ("payload beyond the frame", patched(&TCP_SYN_V6, &[(18, &[0, 21])]), Ipv6Header),
            ("no TCP in it", patched(&TCP_SYN_V6, &[(18, &[0, 0])]), Malformed::Transport),
            ("TCP cut short", patched(&TCP_SYN_V6, &[(18, &[0, 19])]), Malformed::Transport),
            ("UDP length 14", patched(&UDP_V6, &[(58, &[0, 14])]), Malformed::Transport),
            ("options for every hop later", behind(60, &[0, 0, 1, 4, 0, 0, 0, 0]), Ipv6Extension),
            ("options beyond the packet", behind(60, &[6, 9, 1, 4, 0, 0, 0, 0]), Ipv6Extension),
            ("authentication beyond it", behind(51, &[6, 9, 0, 0, 0, 0, 0, 0]), Ipv6Extension),
            ("hops still to go", behind(43, &[6, 0, 4, 1, 0, 0, 0, 0]), Malformed::Ipv6Route),
            ("a route cut short", behind(43, &[6, 9, 4, 1, 0, 0, 0, 0]), Ipv6Extension),
            ("an odd first fragment", behind(44, &[6, 0, 0, 1, 0, 0, 0, 1]), Ipv6Extension),
            ("a fragment beyond 65535", behind(44, &[6, 0, 0xff, 0xf8, 0, 0, 0, 1]), Ipv6Extension),
            (
                "a fragment of a fragment",
                behind(44, &[44, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0, 2]),
                Ipv6Extension,
            ),
            (
                "a jumbogram",
                patched(&behind(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]), &[(18, &[0, 0])]),
                Ipv6Extension,
            ),
        ];
        for (what, frame, expected) in rows {
            assert_eq!(read(frame), Err(*expected), "{what}");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_malformed_and_padding_is_not_packet() {
        for frame in ALL_V6 {
            for len in 14..frame.len() {
                assert_eq!(parse_frame(&frame[..len]), Err(Malformed::Ipv6Header), "{len}");
            }
            let mut padded = frame.to_vec();
            padded.resize(frame.len() + 46, 0xee);
            assert_eq!(parse_frame(&padded), parse_frame(frame));
        }
    }

    #[test]
    fn addresses_of_groups_and_of_the_link_are_made_of_others() {
        let group = solicited_node("2001:db8:0:1::abcd:ef01".parse().unwrap());
        assert_eq!(group, "ff02::1:ffcd:ef01".parse::<Ipv6Addr>().unwrap());
        assert!(is_solicited_node(group));
        assert!(!is_solicited_node("ff02::1".parse().unwrap()) && !is_solicited_node(VIP_V6));
        let mac = group_mac(group);
        assert_eq!(mac, MacAddr([0x33, 0x33, 0xff, 0xcd, 0xef, 0x01]));
        assert!(is_discovery_mac(mac) && is_discovery_mac(MacAddr([0x33, 0x33, 0, 0, 0, 1])));
        assert!(!is_discovery_mac(MacAddr([0x33, 0x33, 0, 0, 0, 2])));
        assert!(!is_discovery_mac(MacAddr::BROADCAST));
        let local = link_local(CLIENT_MAC);
        assert_eq!(local, "fe80::5054:ff:fe00:aa07".parse::<Ipv6Addr>().unwrap());
        assert!(is_link_local(local) && is_link_local("febf::1".parse().unwrap()));
        assert!(!is_link_local(VIP_V6) && !is_link_local("fec0::1".parse().unwrap()));
    }

    proptest! {
        /// Chains of headers, most of them well-formed, of any length, with any bytes in them.
        #[test]
        fn any_chain_is_read_within_its_bounds(
            first in 0usize..6,
            headers in proptest::collection::vec((0usize..6, 0u8..3, any::<[u8; 6]>()), 0..12),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let kinds = [0u8, 60, 43, 44, 51, 6];
            let mut bytes = Vec::new();
            for (next, len, body) in headers {
                bytes.extend_from_slice(&[kinds[next], len]);
                bytes.extend_from_slice(&body);
                bytes.resize(bytes.len() + usize::from(len) * 4, 0);
            }
            bytes.extend_from_slice(&tail);
            if let Ok(found) = Extensions::walk(IpNumber(kinds[first]), &bytes) {
                prop_assert!(found.len <= bytes.len());
            }
            if let Ok(ip) = read(&behind(kinds[first], &bytes)) {
                prop_assert!(ip.payload_start() <= ip.end());
            }
        }
    }
}

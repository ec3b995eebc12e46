//! Multicast listener discovery for IPv6 (RFC 3810, RFC 2710): which groups a station wants to
//! hear, told to bridges and routers that pass a group's frames on to its listeners only.

use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use etherparse::{EtherType, IpNumber, Ipv6Header};

use super::packet::{Ip, Malformed, Transport};
use super::{MacAddr, checksum, emit, icmp, ipv6};

/// Groups in one report, at most: as many as fit the smallest MTU that IPv6 knows.
pub const REPORT_GROUPS_MAX: usize = (1280 - 40 - OPTIONS.len() - 8) / RECORD_LEN;

/// Bytes of a record without sources: type, no auxiliary data, no sources, the group.
const RECORD_LEN: usize = 20;

/// "Router alert: multicast listener discovery" (RFC 2711), padded to eight bytes.
const OPTIONS: [u8; 8] = [IpNumber::IPV6_ICMP.0, 0, 5, 2, 0, 0, 1, 0];

/// All routers that speak MLDv2, and all routers.
const V2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The version of the protocol that a segment's querier speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// "Who wants to hear what?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    pub version: Version,
    /// Asked about this one only, else about all.
    pub group: Option<Ipv6Addr>,
    /// The answer is to come at a random time within this.
    pub max_delay: Duration,
}

/// What a report says about the groups in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// In answer to a query: they are listened to.
    Still,
    /// They are listened to from now on.
    Now,
    /// No longer.
    NoLonger,
}

/// Reads a query; `None` for another message.
///
/// # Errors
/// [`Malformed::Listener`] for what RFC 3810, 5.1.14 and 6.2 want not to be heeded: what may have
/// come through a router, and what is no query of either version.
pub fn parse_query(frame: &[u8], ip: &Ip) -> Option<Result<Query, Malformed>> {
    let Transport::Icmp { kind: icmp::v6::LISTENER_QUERY, .. } = ip.transport else { return None };
    let IpAddr::V6(source) = ip.source else { return None };
    let is_from_neighbor =
        ip.hop_limit == 1 && ipv6::is_link_local(source) && alerts_routers(frame, ip);
    let is_whole = checksum::verify_icmp(frame, ip).is_ok();
    let message = frame.get(ip.payload_start()..ip.end()).unwrap_or_default();
    let query = (is_from_neighbor && is_whole).then(|| read_query(message)).flatten();
    Some(query.ok_or(Malformed::Listener))
}

fn read_query(message: &[u8]) -> Option<Query> {
    let &[_, _, _, _, high, low, ..] = message else { return None };
    let code = u16::from_be_bytes([high, low]);
    let (version, millis) = match message.len() {
        24 => (Version::V1, u32::from(code)),
        28.. => (Version::V2, delay(code)),
        _ => return None,
    };
    let group = Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?);
    let group = match group {
        Ipv6Addr::UNSPECIFIED => None,
        group if group.is_multicast() => Some(group),
        _ => return None,
    };
    Some(Query { version, group, max_delay: Duration::from_millis(u64::from(millis)) })
}

/// Milliseconds; long ones with an exponent (RFC 3810, 5.1.3).
fn delay(code: u16) -> u32 {
    let code = u32::from(code);
    if code < 0x8000 { code } else { (code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3) }
}

/// Whether the first extension header asks routers to look at the packet on account of MLD.
fn alerts_routers(frame: &[u8], ip: &Ip) -> bool {
    let Some(packet) = frame.get(ip.start()..ip.payload_start()) else { return false };
    let (Some(&next), Some(&[_, units, ..])) = (packet.get(6), packet.get(Ipv6Header::LEN..))
    else {
        return false;
    };
    let end = Ipv6Header::LEN + (usize::from(units) + 1) * 8;
    let Some(mut options) = packet.get(Ipv6Header::LEN + 2..end) else { return false };
    if next != IpNumber::IPV6_HEADER_HOP_BY_HOP.0 {
        return false;
    }
    loop {
        options = match options {
            [5, 2, 0, 0, ..] => return true,
            [0, rest @ ..] => rest,
            [_, len, rest @ ..] => rest.get(usize::from(*len)..).unwrap_or_default(),
            _ => return false,
        };
    }
}

/// Writes a report of version 2 about these groups (no more than [`REPORT_GROUPS_MAX`]), whole,
/// appending to the cleared `buffer`. It comes from the link-local address that belongs to `mac`.
pub fn emit_report(buffer: &mut Vec<u8>, mac: MacAddr, what: Listening, groups: &[Ipv6Addr]) {
    let record = match what {
        Listening::Still => 2,
        // To listening to all sources but none, or to none at all (RFC 3810, 5.2.12).
        Listening::Now => 4,
        Listening::NoLonger => 3,
    };
    let groups = groups.get(..REPORT_GROUPS_MAX).unwrap_or(groups);
    let len = 8 + groups.len() * RECORD_LEN;
    let start = emit_headers(buffer, mac, V2_ROUTERS, len);
    let [high, low] = (groups.len() as u16).to_be_bytes();
    buffer.extend_from_slice(&[icmp::v6::LISTENER_REPORT_V2, 0, 0, 0, 0, 0, high, low]);
    for group in groups {
        buffer.extend_from_slice(&[record, 0, 0, 0]);
        buffer.extend_from_slice(&group.octets());
    }
    finish(buffer, start, mac, V2_ROUTERS);
}

/// The same of version 1, of which each message is about one group.
pub fn emit_report_v1(buffer: &mut Vec<u8>, mac: MacAddr, what: Listening, group: Ipv6Addr) {
    let (kind, destination) = match what {
        Listening::Still | Listening::Now => (icmp::v6::LISTENER_REPORT, group),
        Listening::NoLonger => (icmp::v6::LISTENER_DONE, ALL_ROUTERS),
    };
    let start = emit_headers(buffer, mac, destination, 24);
    buffer.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    buffer.extend_from_slice(&group.octets());
    finish(buffer, start, mac, destination);
}

/// Where in the buffer the message starts.
fn emit_headers(buffer: &mut Vec<u8>, mac: MacAddr, destination: Ipv6Addr, len: usize) -> usize {
    let header = Ipv6Header {
        payload_length: (OPTIONS.len() + len) as u16,
        next_header: IpNumber::IPV6_HEADER_HOP_BY_HOP,
        hop_limit: 1,
        source: ipv6::link_local(mac).octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    buffer.extend_from_slice(&ipv6::group_mac(destination).0);
    buffer.extend_from_slice(&mac.0);
    buffer.extend_from_slice(&EtherType::IPV6.0.to_be_bytes());
    buffer.extend_from_slice(&header.to_bytes());
    buffer.extend_from_slice(&OPTIONS);
    buffer.len()
}

fn finish(buffer: &mut [u8], start: usize, mac: MacAddr, destination: Ipv6Addr) {
    let message = buffer.get(start..).unwrap_or_default();
    let source = IpAddr::V6(ipv6::link_local(mac));
    let checksum = checksum::of_icmp(source, destination.into(), message);
    emit::set_checksum(buffer, start + 2, checksum);
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x10);

    /// A query from `fe80::1` with what follows its type and code, and the options before it.
    fn query(options: &[u8], message: &[u8]) -> Vec<u8> {
        let mut frame = TCP_SYN_V6[..54].to_vec();
        frame.extend_from_slice(options);
        frame.extend_from_slice(&[130, 0, 0, 0]);
        frame.extend_from_slice(message);
        let len = (frame.len() - 54) as u16;
        let mut source = [0; 16];
        (source[0], source[1], source[15]) = (0xfe, 0x80, 1);
        let next = if options.is_empty() { 58 } else { 0 };
        let patches: [(usize, &[u8]); 4] =
            [(18, &len.to_be_bytes()), (20, &[next]), (21, &[1]), (22, &source)];
        let mut frame = patched(&frame, &patches);
        complete(&mut frame);
        frame
    }

    fn complete(frame: &mut [u8]) {
        let ip = ip_of(frame);
        let start = ip.payload_start();
        frame[start + 2..start + 4].fill(0);
        let sum = checksum::of_icmp(ip.source, ip.destination, &frame[start..ip.end()]);
        frame[start + 2..start + 4].copy_from_slice(&sum.to_be_bytes());
    }

    fn read(frame: &[u8]) -> Option<Result<Query, Malformed>> {
        parse_query(frame, &ip_of(frame))
    }

    /// Maximum response code, reserved, group, and for version 2 four bytes more.
    fn general(code: u16, more: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], &[0, 0], &[0; 16], more].concat()
    }

    #[test]
    fn queries_of_both_versions_are_read() {
        let expected = |version, group, millis| {
            Some(Ok(Query { version, group, max_delay: Duration::from_millis(millis) }))
        };
        let v1 = query(&OPTIONS, &general(10_000, &[]));
        assert_eq!(read(&v1), expected(Version::V1, None, 10_000));
        let v2 = query(&OPTIONS, &general(0x8001, &[2, 125, 0, 0]));
        assert_eq!(read(&v2), expected(Version::V2, None, 0x1001 << 3));
        let about = [&[0, 0, 0, 0][..], &GROUP.octets()].concat();
        assert_eq!(read(&query(&OPTIONS, &about)), expected(Version::V1, Some(GROUP), 0));
        let padded = [58, 1, 1, 2, 0, 0, 0, 5, 2, 0, 0, 1, 3, 0, 0, 0];
        assert_eq!(read(&query(&padded, &general(1, &[]))), expected(Version::V1, None, 1));
    }

    #[test]
    fn what_may_not_be_heeded_is_malformed() {
        let right = query(&OPTIONS, &general(0, &[2, 125, 0, 0]));
        let changed = |at: usize, byte| {
            let mut frame = right.clone();
            frame[at] = byte;
            complete(&mut frame);
            frame
        };
        let mut wrong = right.clone();
        wrong[66] ^= 1;
        let rows: &[(&str, Vec<u8>)] = &[
            ("hop limit 2", changed(21, 2)),
            ("from no link-local address", changed(22, 0x20)),
            ("a router alert for another protocol", changed(59, 1)),
            ("no router alert", query(&[], &general(0, &[]))),
            ("options without it", query(&[58, 0, 1, 4, 0, 0, 0, 0], &general(0, &[]))),
            ("an option beyond the end", query(&[58, 0, 7, 200, 0, 0, 0, 0], &general(0, &[]))),
            ("26 bytes", query(&OPTIONS, &general(0, &[0, 0]))),
            ("20 bytes", query(&OPTIONS, &general(0, &[])[..16])),
            ("about no group", changed(70, 0x20)),
            ("a wrong checksum", wrong),
        ];
        for (what, frame) in rows {
            assert_eq!(read(frame), Some(Err(Malformed::Listener)), "{what}");
        }
        assert_eq!(read(&ECHO_V6), None);
    }

    #[test]
    fn a_report_names_its_groups_and_comes_from_the_link_local_address() {
        let kinds = [(Listening::Still, 2), (Listening::Now, 4), (Listening::NoLonger, 3)];
        for (what, record) in kinds {
            let mut frame = Vec::new();
            emit_report(&mut frame, DIRECTOR_MAC, what, &[GROUP, V2_ROUTERS]);
            assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x16]);
            let ip = ip_of(&frame);
            assert_eq!(checksum::verify_icmp(&frame, &ip), Ok(()));
            assert!(alerts_routers(&frame, &ip));
            assert_eq!((ip.hop_limit, ip.destination), (1, V2_ROUTERS.into()));
            assert_eq!(ip.source, "fe80::ff:fe00:101".parse::<IpAddr>().unwrap());
            let message = &frame[62..];
            assert_eq!(message[..2], [143, 0]);
            assert_eq!(message[4..12], [0, 0, 0, 2, record, 0, 0, 0]);
            assert_eq!((&message[12..28], message.len()), (&GROUP.octets()[..], 48));
        }
        let mut frame = Vec::new();
        emit_report(&mut frame, DIRECTOR_MAC, Listening::Now, &[GROUP; 1000]);
        assert!(frame.len() <= 14 + 1280 && frame.len() > 14 + 1260, "{}", frame.len());
    }

    #[test]
    fn a_report_of_version_1_goes_to_the_group_and_a_farewell_to_routers() {
        let mut frame = Vec::new();
        emit_report_v1(&mut frame, DIRECTOR_MAC, Listening::Still, GROUP);
        let ip = ip_of(&frame);
        assert_eq!((&frame[..6], frame[62]), (&[0x33, 0x33, 0xff, 0, 0, 0x10][..], 131));
        assert_eq!(checksum::verify_icmp(&frame, &ip), Ok(()));
        assert_eq!((ip.destination, &frame[70..]), (GROUP.into(), &GROUP.octets()[..]));
        frame.clear();
        emit_report_v1(&mut frame, DIRECTOR_MAC, Listening::NoLonger, GROUP);
        assert_eq!((ip_of(&frame).destination, frame[62]), (ALL_ROUTERS.into(), 132));
    }
}

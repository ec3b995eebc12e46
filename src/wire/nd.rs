//! Neighbor discovery for IPv6 (RFC 4861): solicitations and advertisements.

use core::net::{IpAddr, Ipv6Addr};

use etherparse::{EtherType, IpNumber, Ipv6Header};

use super::frame::ETHERNET_HEADER_LEN;
use super::ipv6::{self, Extensions};
use super::packet::{Ip, Malformed, Transport};
use super::{MacAddr, checksum, emit, icmp};

/// All stations of a segment.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Says that the packet came from a neighbor: no router has taken one off (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;

/// Type, code, checksum, flags, and the target address.
const MESSAGE_LEN: usize = 24;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// What a message of neighbor discovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdKind {
    /// "Who has the target?"
    Solicitation,
    /// "I have the target."
    Advertisement {
        /// In answer to a solicitation.
        solicited: bool,
        /// What was known of the target before counts no longer.
        overriding: bool,
    },
}

/// A neighbor solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdPacket {
    pub kind: NdKind,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub target: Ipv6Addr,
    /// Of the source in a solicitation, of the target in an advertisement.
    pub link_layer: Option<MacAddr>,
}

impl NdPacket {
    /// "Who has `target`?", asked of its solicited-node group, or of one station that had it.
    pub fn solicitation(
        mac: MacAddr,
        source: Ipv6Addr,
        target: Ipv6Addr,
        of: Option<MacAddr>,
    ) -> NdPacket {
        let destination = if of.is_some() { target } else { ipv6::solicited_node(target) };
        NdPacket { kind: NdKind::Solicitation, source, destination, target, link_layer: Some(mac) }
    }

    /// "I have `address`", to all, unasked.
    pub fn announcement(mac: MacAddr, address: Ipv6Addr) -> NdPacket {
        NdPacket {
            kind: NdKind::Advertisement { solicited: false, overriding: true },
            source: address,
            destination: ALL_NODES,
            target: address,
            link_layer: Some(mac),
        }
    }

    /// The answer to the solicitation `self`: `mac` has the target. Whoever only wants to know
    /// whether the address is taken has none itself and is told together with all others
    /// (RFC 4861, 7.2.4).
    pub fn reply(&self, mac: MacAddr) -> NdPacket {
        let solicited = !self.source.is_unspecified();
        NdPacket {
            kind: NdKind::Advertisement { solicited, overriding: true },
            source: self.target,
            destination: if solicited { self.source } else { ALL_NODES },
            target: self.target,
            link_layer: Some(mac),
        }
    }

    /// Reads the message in an IPv6 packet; `None` if it is no solicitation or advertisement.
    ///
    /// # Errors
    /// [`Malformed::Neighbor`] for what RFC 4861, 7.1 and RFC 6980 want not to be heeded.
    pub fn parse(frame: &[u8], ip: &Ip) -> Option<Result<NdPacket, Malformed>> {
        let Transport::Icmp { kind, code } = ip.transport else { return None };
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
            return None;
        };
        let is_solicitation = kind == icmp::v6::NEIGHBOR_SOLICITATION;
        if !is_solicitation && kind != icmp::v6::NEIGHBOR_ADVERTISEMENT {
            return None;
        }
        let read = || {
            let message = frame.get(ip.payload_start()..ip.end())?;
            let (&flags, target) = (message.get(4)?, message.get(8..MESSAGE_LEN)?);
            let target = Ipv6Addr::from(<[u8; 16]>::try_from(target).ok()?);
            let [source_option, target_option] = link_layer_options(message.get(MESSAGE_LEN..)?)?;
            let (kind, link_layer) = if is_solicitation {
                (NdKind::Solicitation, source_option)
            } else {
                let (solicited, overriding) = (flags & 0x40 != 0, flags & 0x20 != 0);
                (NdKind::Advertisement { solicited, overriding }, target_option)
            };
            Some(NdPacket { kind, source, destination, target, link_layer })
        };
        let is_whole = !is_fragmented(frame, ip) && checksum::verify_icmp(frame, ip).is_ok();
        let packet = (ip.hop_limit == HOP_LIMIT && code == 0 && is_whole).then(read).flatten();
        Some(packet.filter(NdPacket::is_possible).ok_or(Malformed::Neighbor))
    }

    fn is_possible(&self) -> bool {
        let allowed = match self.kind {
            NdKind::Solicitation if self.source.is_unspecified() => {
                ipv6::is_solicited_node(self.destination) && self.link_layer.is_none()
            }
            NdKind::Solicitation => true,
            NdKind::Advertisement { solicited, .. } => {
                let to_all_alike = solicited && self.destination.is_multicast();
                !self.source.is_unspecified() && !to_all_alike
            }
        };
        let is_station = |address: Ipv6Addr| !address.is_multicast() && !address.is_loopback();
        allowed
            && is_station(self.source)
            && is_station(self.target)
            && !self.target.is_unspecified()
            && self.link_layer.is_none_or(MacAddr::is_station)
    }

    /// Writes the whole frame, appending to the cleared `buffer`. One to a group goes to that
    /// group's MAC, whatever `destination` is.
    pub fn emit(&self, buffer: &mut Vec<u8>, source_mac: MacAddr, destination: MacAddr) {
        let (kind, flags, option) = match self.kind {
            NdKind::Solicitation => (icmp::v6::NEIGHBOR_SOLICITATION, 0, SOURCE_LINK_LAYER),
            NdKind::Advertisement { solicited, overriding } => (
                icmp::v6::NEIGHBOR_ADVERTISEMENT,
                u8::from(solicited) << 6 | u8::from(overriding) << 5,
                TARGET_LINK_LAYER,
            ),
        };
        let is_group = self.destination.is_multicast();
        let destination = if is_group { ipv6::group_mac(self.destination) } else { destination };
        let payload_len = MESSAGE_LEN + if self.link_layer.is_some() { 8 } else { 0 };
        let header = Ipv6Header {
            payload_length: payload_len as u16,
            next_header: IpNumber::IPV6_ICMP,
            hop_limit: HOP_LIMIT,
            source: self.source.octets(),
            destination: self.destination.octets(),
            ..Ipv6Header::default()
        };
        buffer.extend_from_slice(&destination.0);
        buffer.extend_from_slice(&source_mac.0);
        buffer.extend_from_slice(&EtherType::IPV6.0.to_be_bytes());
        buffer.extend_from_slice(&header.to_bytes());
        buffer.extend_from_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
        buffer.extend_from_slice(&self.target.octets());
        if let Some(mac) = self.link_layer {
            buffer.extend_from_slice(&[option, 1]);
            buffer.extend_from_slice(&mac.0);
        }
        let start = ETHERNET_HEADER_LEN + Ipv6Header::LEN;
        let message = buffer.get(start..).unwrap_or_default();
        let checksum = checksum::of_icmp(self.source.into(), self.destination.into(), message);
        emit::set_checksum(buffer, start + 2, checksum);
    }
}

/// Whether there is a fragment header, be it of a whole packet.
fn is_fragmented(frame: &[u8], ip: &Ip) -> bool {
    let next = frame.get(ip.start() + 6).map(|&next| IpNumber(next));
    let extensions = frame.get(ip.start() + Ipv6Header::LEN..ip.end());
    let found = next.zip(extensions).map(|(next, bytes)| Extensions::walk(next, bytes));
    !matches!(found, Some(Ok(Extensions { fragment: None, .. })))
}

/// The source's and the target's link-layer address among the options of a message; `None` if
/// the options do not end where the message does.
fn link_layer_options(mut options: &[u8]) -> Option<[Option<MacAddr>; 2]> {
    let mut found = [None; 2];
    while let &[kind, units, ..] = options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        let place = match kind {
            SOURCE_LINK_LAYER => 0,
            TARGET_LINK_LAYER => 1,
            _ => 2,
        };
        // An option without length would be read for ever (RFC 4861, 4.6).
        let mac = option.get(2..8)?;
        if let Some(place) = found.get_mut(place) {
            *place = Some(MacAddr(mac.try_into().ok()?));
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 0xaa07);

    fn emitted(packet: NdPacket, source_mac: MacAddr, destination: MacAddr) -> Vec<u8> {
        let mut frame = Vec::new();
        packet.emit(&mut frame, source_mac, destination);
        frame
    }

    fn read(frame: &[u8]) -> Option<Result<NdPacket, Malformed>> {
        NdPacket::parse(frame, &ip_of(frame))
    }

    /// With another byte somewhere, and the ICMP checksum put right.
    fn changed(frame: &[u8], patches: &[(usize, &[u8])]) -> Vec<u8> {
        let mut frame = patched(frame, patches);
        frame[56..58].fill(0);
        let ip = ip_of(&frame);
        let checksum = checksum::of_icmp(ip.source, ip.destination, &frame[54..ip.end()]);
        frame[56..58].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// Worked out by other means than ours.
    #[rustfmt::skip]
    const SOLICITATION: [u8; 86] = [
        0x33, 0x33, 0xff, 0x00, 0x00, 0x10,
        0x52, 0x54, 0x00, 0x00, 0xaa, 0x07,
        0x86, 0xdd,
        0x60, 0x00, 0x00, 0x00, 0x00, 0x20, 0x3a, 0xff,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0x10,
        135, 0, 0x21, 0xa8, 0, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10,
        1, 1, 0x52, 0x54, 0x00, 0x00, 0xaa, 0x07,
    ];

    #[test]
    fn a_solicitation_has_these_bytes_and_is_read_back() {
        let asked = NdPacket::solicitation(CLIENT_MAC, CLIENT_V6, VIP_V6, None);
        assert_eq!(emitted(asked, CLIENT_MAC, MacAddr::ZERO), SOLICITATION);
        assert_eq!(read(&SOLICITATION), Some(Ok(asked)));
        let again = NdPacket::solicitation(CLIENT_MAC, LINK_LOCAL, VIP_V6, Some(DIRECTOR_MAC));
        let frame = emitted(again, CLIENT_MAC, DIRECTOR_MAC);
        assert_eq!((&frame[..6], again.destination), (&DIRECTOR_MAC.0[..], VIP_V6));
        assert_eq!(read(&frame), Some(Ok(again)));
    }

    #[test]
    fn a_reply_goes_to_the_one_who_asked_or_to_all_if_that_has_no_address_yet() {
        let asked = NdPacket::solicitation(CLIENT_MAC, CLIENT_V6, VIP_V6, None);
        let reply = asked.reply(DIRECTOR_MAC);
        let frame = emitted(reply, DIRECTOR_MAC, CLIENT_MAC);
        assert_eq!(frame[..6], CLIENT_MAC.0);
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58], 0x60, "solicited and overriding, no router");
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 1, 1]);
        assert_eq!((reply.source, reply.destination), (VIP_V6, CLIENT_V6));
        assert_eq!(read(&frame), Some(Ok(reply)));

        let probe = NdPacket { source: Ipv6Addr::UNSPECIFIED, link_layer: None, ..asked };
        let probe_frame = emitted(probe, CLIENT_MAC, MacAddr::ZERO);
        assert_eq!(read(&probe_frame), Some(Ok(probe)));
        let reply = probe.reply(DIRECTOR_MAC);
        let frame = emitted(reply, DIRECTOR_MAC, CLIENT_MAC);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!((reply.destination, frame[58]), (ALL_NODES, 0x20), "overriding only");
        assert_eq!(read(&frame), Some(Ok(reply)));
    }

    #[test]
    fn an_announcement_goes_to_all_unasked() {
        let packet = NdPacket::announcement(DIRECTOR_MAC, VIP_V6);
        let frame = emitted(packet, DIRECTOR_MAC, MacAddr::ZERO);
        assert_eq!((&frame[..6], frame[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], 0x20));
        assert_eq!(read(&frame), Some(Ok(packet)));
    }

    #[test]
    fn what_may_not_be_heeded_is_malformed() {
        let all_nodes = ALL_NODES.octets();
        let advertisement = emitted(
            NdPacket::solicitation(CLIENT_MAC, CLIENT_V6, VIP_V6, None).reply(DIRECTOR_MAC),
            DIRECTOR_MAC,
            CLIENT_MAC,
        );
        let mut wrong = SOLICITATION;
        wrong[70] ^= 1;
        let rows: &[(&str, Vec<u8>)] = &[
            ("through a router", changed(&SOLICITATION, &[(21, &[254])])),
            ("code 1", changed(&SOLICITATION, &[(55, &[1])])),
            ("a wrong checksum", wrong.to_vec()),
            ("cut short", changed(&SOLICITATION, &[(18, &[0, 23])])),
            ("an option cut short", changed(&SOLICITATION, &[(18, &[0, 31])])),
            ("an option without length", changed(&SOLICITATION, &[(79, &[0])])),
            ("an option beyond the end", changed(&SOLICITATION, &[(79, &[2])])),
            ("about a group", changed(&SOLICITATION, &[(62, &all_nodes)])),
            ("about nobody", changed(&SOLICITATION, &[(62, &[0; 16])])),
            ("from a group", changed(&SOLICITATION, &[(22, &all_nodes)])),
            ("at a group's MAC", changed(&SOLICITATION, &[(80, &[1])])),
            ("a probe that tells its MAC", changed(&SOLICITATION, &[(22, &[0; 16])])),
            (
                "a probe of one station",
                changed(&SOLICITATION, &[(22, &[0; 16]), (38, &VIP_V6.octets()), (78, &[9])]),
            ),
            ("solicited, yet to all", changed(&advertisement, &[(38, &all_nodes)])),
            ("an advertisement from nobody", changed(&advertisement, &[(22, &[0; 16])])),
        ];
        for (what, frame) in rows {
            assert_eq!(read(frame), Some(Err(Malformed::Neighbor)), "{what}");
        }
        assert_eq!(read(&changed(&SOLICITATION, &[(54, &[133])])), None, "another message");
        assert_eq!(read(&ECHO_V6), None);
        assert_eq!(read(&ECHO), None);
    }

    #[test]
    fn options_of_other_kinds_are_passed_over_and_fragments_never_heeded() {
        let mut more = SOLICITATION.to_vec();
        more.extend_from_slice(&[14, 1, 1, 2, 3, 4, 5, 6]);
        let more = changed(&more, &[(18, &[0, 40])]);
        let asked = NdPacket::solicitation(CLIENT_MAC, CLIENT_V6, VIP_V6, None);
        assert_eq!(read(&more), Some(Ok(asked)));
        let mut atomic = SOLICITATION[..54].to_vec();
        atomic.extend_from_slice(&[58, 0, 0, 0, 0, 0, 0, 7]);
        atomic.extend_from_slice(&SOLICITATION[54..]);
        let atomic = patched(&atomic, &[(18, &[0, 40]), (20, &[44])]);
        assert_eq!(read(&atomic), Some(Err(Malformed::Neighbor)));
    }
}

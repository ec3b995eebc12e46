//! Questions of one packet: an echo request, a datagram.

use core::net::IpAddr;
use std::sync::Arc;

use etherparse::{IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header};
use etherparse::{PacketBuilder, PacketBuilderStep};

use super::super::transmit::TransmitQueue;
use super::{Fault, Target, dns};
use crate::config::check::{DnsCheck, UdpCheck};

/// ICMP and ICMPv6 echo replies (RFC 792; RFC 4443, 4.2).
pub(super) const ECHO_REPLY_V4: u8 = 0;
pub(super) const ECHO_REPLY_V6: u8 = 129;

const TTL: u8 = 64;
/// IPv4 header and ICMP header; IPv6 header and ICMPv6 header.
const ECHO_OVERHEAD_V4: usize = 28;
const ECHO_OVERHEAD_V6: usize = 48;

/// What a datagram says, and what may come back.
#[derive(Debug)]
pub(in crate::director) enum Exchange {
    Udp(UdpCheck),
    Dns(DnsCheck),
}

impl Exchange {
    /// Whether an answer will do; `id` is the number the question had.
    pub fn judge(&self, id: u16, answer: &[u8]) -> Result<(), Fault> {
        match self {
            Exchange::Dns(check) => dns::judge(check, id, answer),
            Exchange::Udp(UdpCheck { expect: Some(expect), .. }) => {
                let found = expect.is_empty()
                    || answer.windows(expect.len()).any(|window| *window == **expect);
                if found { Ok(()) } else { Err(Fault::TextMissing) }
            }
            Exchange::Udp(UdpCheck { expect: None, .. }) => Ok(()),
        }
    }

    fn question(&self, id: u16) -> Arc<[u8]> {
        match self {
            Exchange::Udp(check) => Arc::clone(&check.send),
            Exchange::Dns(check) => dns::query(check, id).into(),
        }
    }
}

/// Sends a datagram.
pub(super) fn send(
    target: &Target,
    local_port: u16,
    remote_port: u16,
    exchange: &Exchange,
    transmit: &mut TransmitQueue,
) {
    let question = exchange.question(local_port);
    let packet = packet(target, IpNumber::UDP, false).map(|builder| {
        let mut bytes = Vec::new();
        let builder = builder.udp(local_port, remote_port);
        builder.write_to_vec(&mut bytes, &question).map(|()| bytes)
    });
    emit(target, packet, transmit);
}

/// Sends an echo request in an IP packet of this length that may not be fragmented.
pub(super) fn send_echo(target: &Target, identifier: u16, len: u16, transmit: &mut TransmitQueue) {
    let is_v4 = target.destination.is_ipv4();
    let overhead = if is_v4 { ECHO_OVERHEAD_V4 } else { ECHO_OVERHEAD_V6 };
    let data = vec![0x56; usize::from(len).saturating_sub(overhead)];
    let protocol = if is_v4 { IpNumber::ICMP } else { IpNumber::IPV6_ICMP };
    let packet = packet(target, protocol, true).map(|builder| {
        let mut bytes = Vec::new();
        let written = if is_v4 {
            builder.icmpv4_echo_request(identifier, 1).write_to_vec(&mut bytes, &data)
        } else {
            builder.icmpv6_echo_request(identifier, 1).write_to_vec(&mut bytes, &data)
        };
        written.map(|()| bytes)
    });
    emit(target, packet, transmit);
}

fn emit<E>(target: &Target, packet: Option<Result<Vec<u8>, E>>, transmit: &mut TransmitQueue) {
    // It is too long only for lengths that validation does not let through.
    let Some(Ok(bytes)) = packet else { return };
    target.send(transmit, bytes.len(), |buffer| buffer.copy_from_slice(&bytes));
}

/// The IP header; `None` if the addresses are of two families.
fn packet(
    target: &Target,
    protocol: IpNumber,
    dont_fragment: bool,
) -> Option<PacketBuilderStep<IpHeaders>> {
    let headers = match (target.source, target.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => IpHeaders::Ipv4(
            Ipv4Header {
                dont_fragment,
                time_to_live: TTL,
                protocol,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv4Header::default()
            },
            Ipv4Extensions::default(),
        ),
        (IpAddr::V6(source), IpAddr::V6(destination)) => IpHeaders::Ipv6(
            Ipv6Header {
                hop_limit: TTL,
                next_header: protocol,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            },
            Ipv6Extensions::default(),
        ),
        _ => return None,
    };
    Some(PacketBuilder::ip(headers))
}

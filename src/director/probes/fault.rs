//! Why a question was not answered as it should: words for a person, and what they follow from.

use core::fmt;
use core::net::IpAddr;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::director) enum Fault {
    /// Time is up.
    NoAnswer(Stage),
    /// A reset in answer to the SYN: nobody listens.
    Refused,
    /// The connection ended before the answer was whole.
    Closed,
    /// An ICMP error from this address.
    Unreachable { by: IpAddr, error: IcmpError },
    /// The packet itself came back: whoever has the MAC does not have the address.
    CameBack,
    /// The answer comes from another address than was asked.
    OtherSource(IpAddr),
    /// Not an answer in the protocol that was asked in.
    Garbled(&'static str),
    /// A status code that will not do.
    Status(u16),
    /// The text that was looked for is not there.
    TextMissing,
    /// A DNS response code that will not do.
    Rcode(u8),
    /// The real server's MAC is not known.
    NoNeighbor,
    /// The address is answered for by another MAC than the configured one.
    OtherMac,
    /// The director has no address on the segment to ask from.
    NoSource,
    /// Of a command.
    Other(String),
}

/// How far a question had come when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::director) enum Stage {
    /// Asked; nothing came.
    Asked,
    /// The connection was accepted.
    Connected,
    /// Part of an answer came.
    Answering,
}

/// An ICMP or ICMPv6 error, by its type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::director) enum IcmpError {
    Network,
    Host,
    Protocol,
    Port,
    /// Forbidden by a filter.
    Prohibited,
    /// With the MTU that it would have fitted, 0 if that is not told.
    TooBig(u16),
    Other,
}

impl IcmpError {
    /// RFC 792 and RFC 1812, 5.2.7.1: type 3; RFC 4443, 3.1: type 1. `rest` is the second word of the
    /// header, with the MTU of RFC 1191, 4, and RFC 4443, 3.2.
    pub fn new(is_v4: bool, kind: u8, code: u8, rest: [u8; 4]) -> IcmpError {
        match (is_v4, kind, code) {
            (true, 3, 0 | 6 | 8 | 11) | (false, 1, 0) => IcmpError::Network,
            (true, 3, 1 | 5 | 7 | 12) | (false, 1, 2 | 3) => IcmpError::Host,
            (true, 3, 2) => IcmpError::Protocol,
            (true, 3, 3) | (false, 1, 4) => IcmpError::Port,
            (true, 3, 4) => IcmpError::TooBig(u16::from_be_bytes([rest[2], rest[3]])),
            (false, 2, _) => {
                IcmpError::TooBig(u16::try_from(u32::from_be_bytes(rest)).unwrap_or(u16::MAX))
            }
            (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6) => IcmpError::Prohibited,
            _ => IcmpError::Other,
        }
    }
}

impl fmt::Display for IcmpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let IcmpError::TooBig(mtu @ 1..) = self {
            return write!(formatter, "packet too big, {mtu} at most");
        }
        formatter.write_str(match self {
            IcmpError::Network => "network unreachable",
            IcmpError::Host => "host unreachable",
            IcmpError::Protocol => "protocol unreachable",
            IcmpError::Port => "port unreachable",
            IcmpError::Prohibited => "prohibited by a filter",
            IcmpError::TooBig(_) => "packet too big",
            IcmpError::Other => "an ICMP error",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoAnswer(Stage::Asked) => formatter.write_str("no answer"),
            Fault::NoAnswer(Stage::Connected) => formatter.write_str("connected, then no answer"),
            Fault::NoAnswer(Stage::Answering) => formatter.write_str("an answer without end"),
            Fault::Refused => formatter.write_str("connection refused"),
            Fault::Closed => formatter.write_str("connection closed before the answer was whole"),
            Fault::Unreachable { by, error } => write!(formatter, "{error}, says {by}"),
            Fault::CameBack => formatter.write_str("it sends the check back: it lacks the VIP"),
            Fault::OtherSource(other) => write!(formatter, "answered from {other}"),
            Fault::Garbled(what) => write!(formatter, "the answer is not {what}"),
            Fault::Status(status) => write!(formatter, "HTTP {status}"),
            Fault::TextMissing => formatter.write_str("the answer lacks the text expected"),
            Fault::Rcode(rcode) => {
                let names = &crate::config::check::DNS_RCODES;
                match names.iter().find(|(_, number)| number == rcode) {
                    Some((name, _)) => write!(formatter, "DNS {name}"),
                    None => write!(formatter, "DNS response code {rcode}"),
                }
            }
            Fault::NoNeighbor => formatter.write_str("silent to ARP"),
            Fault::OtherMac => formatter.write_str("another MAC answers for it"),
            Fault::NoSource => formatter.write_str("the segment has no `address` to ask from"),
            Fault::Other(text) => formatter.write_str(text),
        }
    }
}

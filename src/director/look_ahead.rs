//! A burst's connections are brought near all at once, before its frames are judged one by one.
//!
//! With a million connections, a frame's look-up waits for memory twice, longer than everything
//! else takes. The waits of a whole burst overlap when they are begun together.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::connections::FlowHash;
use super::flow::FlowKey;
use super::{BURST_MAX, Director};
use crate::wire::frame::ETHERNET_HEADER_LEN;

/// With fewer connections there is nothing to wait for. With more there is even where they would
/// all fit into the caches: the system calls between two bursts leave little of them there. In
/// the forwarding benchmark looking ahead takes a quarter off 10,000 connections hit at random.
const CONNECTIONS_MIN: u32 = 256;

impl Director {
    /// Tells of the frames of a burst (up to [`BURST_MAX`]) that [`Self::handle_frame`] is about
    /// to be given. Nothing depends on it but how long that takes.
    pub fn look_ahead<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) {
        if self.connections.len() < CONNECTIONS_MIN {
            return;
        }
        let mut hashes = [FlowHash::default(); BURST_MAX];
        let mut len = 0;
        let mut last = None;
        for key in frames.filter_map(guess_flow) {
            // Frames of one flow come one behind the other, and it is looked up once.
            if last == Some(key) {
                continue;
            }
            last = Some(key);
            let Some(hash) = hashes.get_mut(len) else { break };
            *hash = self.connections.hash(&key);
            len += 1;
        }
        self.connections.look_ahead(&hashes[..len]);
    }
}

/// The flow a frame is of, if it is what frames mostly are: whole, and TCP or UDP over IPv4, or
/// over IPv6 without extension headers.
fn guess_flow(frame: &[u8]) -> Option<FlowKey> {
    let (ethernet, packet) = frame.split_first_chunk::<ETHERNET_HEADER_LEN>()?;
    match ethernet[12..] {
        [0x08, 0x00] => guess_ipv4(packet),
        [0x86, 0xdd] => guess_ipv6(packet),
        _ => None,
    }
}

fn guess_ipv4(packet: &[u8]) -> Option<FlowKey> {
    let header = packet.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0x0F) * 4;
    let ports = packet.get(header_len..)?.first_chunk::<4>()?;
    let address = |at: usize| Ipv4Addr::from([0, 1, 2, 3].map(|byte| header[at + byte]));
    matches!(header[9], 6 | 17).then(|| {
        FlowKey::v4(
            header[9],
            address(12),
            u16::from_be_bytes([ports[0], ports[1]]),
            address(16),
            u16::from_be_bytes([ports[2], ports[3]]),
        )
    })
}

fn guess_ipv6(packet: &[u8]) -> Option<FlowKey> {
    let (header, payload) = packet.split_first_chunk::<40>()?;
    let ports = payload.first_chunk::<4>()?;
    let address = |at: usize| {
        header[at..].first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |&octets| octets.into())
    };
    matches!(header[6], 6 | 17).then(|| {
        FlowKey::v6(
            header[6],
            address(8),
            u16::from_be_bytes([ports[0], ports[1]]),
            address(24),
            u16::from_be_bytes([ports[2], ports[3]]),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::{self, Body, Transport};
    use crate::wire::samples;

    #[test]
    fn the_guess_is_what_the_parse_says_and_nothing_panics() {
        let mut guessed = 0;
        for frame in samples::ALL.into_iter().chain(samples::ALL_V6) {
            for len in 0..frame.len() {
                guess_flow(&frame[..len]);
            }
            let Ok(packet) = packet::parse(frame) else { continue };
            let Some(guess) = guess_flow(frame) else { continue };
            let Body::Ip(ip) = packet.body else { panic!("{guess:?} is no IP") };
            let (Transport::Tcp { source_port, destination_port, .. }
            | Transport::Udp { source_port, destination_port }) = ip.transport
            else {
                panic!("{guess:?} is neither TCP nor UDP")
            };
            let key =
                FlowKey::new(ip.protocol, ip.source, source_port, ip.destination, destination_port);
            assert_eq!(guess, key);
            guessed += 1;
        }
        assert!(guessed >= 5, "{guessed}");
    }
}

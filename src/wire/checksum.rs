//! The Internet checksum (RFC 1071).

use super::packet::Ipv4;

/// A checksum did not match the bytes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wrong checksum")]
pub struct BadChecksum;

/// Verifies the TCP or UDP checksum over pseudo-header and payload; a UDP checksum of 0 is none.
///
/// # Errors
/// [`BadChecksum`] when it does not match.
pub fn verify_transport(_frame: &[u8], _packet: &Ipv4) -> Result<(), BadChecksum> {
    todo!()
}

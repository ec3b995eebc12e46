//! IEEE 802 MAC addresses.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A 48-bit MAC address, in the order of the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`, every station of a segment.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    /// `00:00:00:00:00:00`, the "not known" of an ARP request's target field.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Whether the group bit is set (broadcast is a multicast too).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether a station can have it: neither a group address nor all zeros.
    pub const fn is_station(self) -> bool {
        !self.is_multicast() && self.to_word() != 0
    }

    /// The address as a number, for hashing: another one for every address. In the machine's own
    /// byte order, which two loads give.
    #[inline]
    pub const fn to_word(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        let (high, low) = (u16::from_ne_bytes([e, f]), u32::from_ne_bytes([a, b, c, d]));
        (high as u64) << 32 | low as u64
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        let mut text = [0u8; 17];
        let digits = b"0123456789abcdef";
        for (i, octet) in [a, b, c, d, e, f].into_iter().enumerate() {
            text[i * 3] = digits[usize::from(octet >> 4)];
            text[i * 3 + 1] = digits[usize::from(octet & 15)];
            if i < 5 {
                text[i * 3 + 2] = b':';
            }
        }
        // `pad` so that tables can give a width.
        formatter.pad(core::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a MAC address must look like; the whole message of a failed parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected six pairs of hexadecimal digits, as in 02:00:00:00:01:01")]
pub struct MacAddrError;

impl FromStr for MacAddr {
    type Err = MacAddrError;

    /// Six pairs of hexadecimal digits, separated by colons throughout or by hyphens throughout.
    fn from_str(text: &str) -> Result<MacAddr, MacAddrError> {
        let bytes = text.as_bytes();
        let separator = *bytes.get(2).ok_or(MacAddrError)?;
        if bytes.len() != 17 || !matches!(separator, b':' | b'-') {
            return Err(MacAddrError);
        }
        let mut octets = [0u8; 6];
        for (i, octet) in octets.iter_mut().enumerate() {
            let digit = |at: usize| char::from(bytes[at]).to_digit(16).ok_or(MacAddrError);
            if i < 5 && bytes[i * 3 + 2] != separator {
                return Err(MacAddrError);
            }
            *octet = (digit(i * 3)? << 4 | digit(i * 3 + 1)?) as u8;
        }
        Ok(MacAddr(octets))
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MacAddr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_octets_agree_both_ways() {
        let mac = MacAddr([0x02, 0, 0xab, 0xcd, 0xef, 0x10]);
        assert_eq!(mac.to_string(), "02:00:ab:cd:ef:10");
        assert_eq!("02:00:ab:CD:ef:10".parse(), Ok(mac));
        assert_eq!("02-00-ab-cd-ef-10".parse(), Ok(mac));
    }

    #[test]
    fn anything_but_six_pairs_is_refused() {
        for text in [
            "",
            "02",
            "02:00:00:00:01",
            "02:00:00:00:01:01:01",
            "02:00:00:00:01:0g",
            "02:00-00:00:01:01",
            "0200.0000.0101",
            "02:00:00:00:01:1",
            "é2:00:00:00:01:01",
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(MacAddrError), "{text}");
        }
    }

    #[test]
    fn only_unicast_addresses_that_are_not_zero_are_stations() {
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_station());
        assert!(!MacAddr::ZERO.is_station());
        assert!(!MacAddr::BROADCAST.is_station());
        assert!(!MacAddr([1, 0, 0x5e, 0, 0, 1]).is_station());
    }
}

//! The key of a connection: who talks to which VIP and port, dual-stack and compact.

use core::fmt;
use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::snapshot::Protocol;

/// Client address and L4 port, virtual address and L4 port, protocol.
///
/// 40 bytes for both families. IPv4 addresses share one word, so that hashing and comparing
/// them touch only 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    /// Client port, virtual port, protocol number, kind (bits 0–15 each, least significant last).
    meta: u64,
    addresses: [u64; 4],
}

/// Set in the kind field of `meta` for IPv6, so that no IPv6 flow can pass for an IPv4 one.
const KIND_V6: u64 = 1;
/// Set in the kind field of `meta` for persistence templates, which share the table.
const KIND_TEMPLATE: u64 = 2;
/// Set in the kind field of `meta` for templates of services whose first ports are a range: another
/// service may have the first of these ports for itself.
const KIND_RANGE: u64 = 4;

impl FlowKey {
    /// The key of an IPv4 flow.
    #[inline]
    pub fn v4(
        protocol: u8,
        client: Ipv4Addr,
        client_port: u16,
        vip: Ipv4Addr,
        virtual_port: u16,
    ) -> FlowKey {
        let addresses = u64::from(client.to_bits()) << 32 | u64::from(vip.to_bits());
        FlowKey {
            meta: meta(client_port, virtual_port, protocol, 0),
            addresses: [addresses, 0, 0, 0],
        }
    }

    /// The key of an IPv6 flow.
    pub fn v6(
        protocol: u8,
        client: Ipv6Addr,
        client_port: u16,
        vip: Ipv6Addr,
        virtual_port: u16,
    ) -> FlowKey {
        let (client, vip) = (client.to_bits(), vip.to_bits());
        FlowKey {
            meta: meta(client_port, virtual_port, protocol, KIND_V6),
            addresses: [(client >> 64) as u64, client as u64, (vip >> 64) as u64, vip as u64],
        }
    }

    /// The key of a flow of either family.
    ///
    /// # Panics
    /// When the families differ, which validation and the wire both rule out.
    #[inline]
    pub fn new(
        protocol: u8,
        client: IpAddr,
        client_port: u16,
        vip: IpAddr,
        virtual_port: u16,
    ) -> FlowKey {
        match (client, vip) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => {
                FlowKey::v4(protocol, client, client_port, vip, virtual_port)
            }
            (IpAddr::V6(client), IpAddr::V6(vip)) => {
                FlowKey::v6(protocol, client, client_port, vip, virtual_port)
            }
            _ => unreachable!("client and VIP of one packet are of one family"),
        }
    }

    /// The key of a persistence template: the masked client, no client port.
    ///
    /// # Panics
    /// When the families differ, which validation and the wire both rule out.
    pub fn template(protocol: u8, client: IpAddr, vip: IpAddr, virtual_port: u16) -> FlowKey {
        let mut key = FlowKey::new(protocol, client, 0, vip, virtual_port);
        key.meta |= KIND_TEMPLATE;
        key
    }

    /// A template's key for a service whose first ports are a range.
    pub const fn of_range(mut self) -> FlowKey {
        self.meta |= KIND_RANGE;
        self
    }

    #[inline]
    const fn is_v6(&self) -> bool {
        self.meta & KIND_V6 != 0
    }

    /// Whether this is a persistence template rather than a connection.
    pub const fn is_template(&self) -> bool {
        self.meta & KIND_TEMPLATE != 0
    }

    pub const fn client_port(&self) -> u16 {
        (self.meta >> 48) as u16
    }

    pub const fn virtual_port(&self) -> u16 {
        (self.meta >> 32) as u16
    }

    /// The transport; `None` is impossible for a flow of a service.
    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number((self.meta >> 16) as u8)
    }

    pub fn client(&self) -> IpAddr {
        if self.is_v6() {
            IpAddr::V6(Ipv6Addr::from_bits(join(self.addresses[0], self.addresses[1])))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits((self.addresses[0] >> 32) as u32))
        }
    }

    pub fn vip(&self) -> IpAddr {
        if self.is_v6() {
            IpAddr::V6(Ipv6Addr::from_bits(join(self.addresses[2], self.addresses[3])))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(self.addresses[0] as u32))
        }
    }

    /// Feeds what tells this key from every other to a hash: whole words, which costs a hash less
    /// than as many bytes.
    #[inline]
    pub fn feed(&self, hasher: &mut impl Hasher) {
        let [first, rest @ ..] = self.addresses;
        hasher.write_u64(self.meta);
        hasher.write_u64(first);
        if self.is_v6() {
            rest.into_iter().for_each(|word| hasher.write_u64(word));
        }
    }
}

const fn meta(client_port: u16, virtual_port: u16, protocol: u8, kind: u64) -> u64 {
    (client_port as u64) << 48 | (virtual_port as u64) << 32 | (protocol as u64) << 16 | kind
}

const fn join(high: u64, low: u64) -> u128 {
    (high as u128) << 64 | low as u128
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}/{} {} -> {}/{}{}",
            self.client(),
            self.client_port(),
            (self.meta >> 16) as u8,
            self.vip(),
            self.virtual_port(),
            if self.is_template() { " (template)" } else { "" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_what_it_was_made_of() {
        let client: Ipv4Addr = "198.51.100.7".parse().unwrap();
        let vip: Ipv4Addr = "192.0.2.10".parse().unwrap();
        let key = FlowKey::v4(6, client, 40000, vip, 80);
        assert_eq!((key.client(), key.client_port()), (IpAddr::V4(client), 40000));
        assert_eq!((key.vip(), key.virtual_port()), (IpAddr::V4(vip), 80));
        assert_eq!(key.protocol(), Some(Protocol::Tcp));

        let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let vip: Ipv6Addr = "2001:db8:1::10".parse().unwrap();
        let key = FlowKey::v6(17, client, 40000, vip, 53);
        assert_eq!((key.client(), key.client_port()), (IpAddr::V6(client), 40000));
        assert_eq!((key.vip(), key.virtual_port()), (IpAddr::V6(vip), 53));
    }

    /// The bytes that a key feeds to a hash.
    fn fed(key: &FlowKey) -> Vec<u8> {
        struct Bytes(Vec<u8>);
        impl Hasher for Bytes {
            fn write(&mut self, bytes: &[u8]) {
                self.0.extend(bytes);
            }

            fn finish(&self) -> u64 {
                0
            }
        }
        let mut bytes = Bytes(Vec::new());
        key.feed(&mut bytes);
        bytes.0
    }

    #[test]
    fn families_and_templates_never_share_a_key() {
        let v4 = FlowKey::v4(6, Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::UNSPECIFIED, 80);
        let v6 = FlowKey::v6(6, Ipv6Addr::UNSPECIFIED, 0, Ipv6Addr::UNSPECIFIED, 80);
        let template =
            FlowKey::template(6, Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into(), 80);
        assert_ne!(v4, v6);
        assert_ne!(v4, template);
        assert_ne!(fed(&v4), fed(&v6));
        assert_ne!(fed(&v4), fed(&template));
    }
}

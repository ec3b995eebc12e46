//! Network devices of this host, through rtnetlink: look up, make a bridge, set, enslave, remove.
//!
//! This knows devices. What is made when, and undone when, is [`super::attachment`]'s business.
//! See rtnetlink(7) and `linux/if_link.h`.

use std::io;

use super::netlink::{self, Attributes, Request, Socket, read_text, read_u16, read_u32};

/// `struct ifinfomsg`: family, padding, device type, index, flags, mask of flags to change.
const LINK_HEADER_LEN: usize = 16;
/// `IFLA_BR_FORWARD_DELAY` and `IFLA_BR_STP_STATE` of `linux/if_link.h`.
const BRIDGE_FORWARD_DELAY: u16 = 1;
const BRIDGE_STP_STATE: u16 = 5;
/// `IFLA_TUN_TYPE` and `IFLA_TUN_MULTI_QUEUE` of `linux/if_link.h`.
const TUN_TYPE: u16 = 3;
const TUN_MULTI_QUEUE: u16 = 7;
/// `IFLA_NUM_RX_QUEUES` of `linux/if_link.h`.
const RX_QUEUES: u16 = 32;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, index of the device.
const ADDRESS_HEADER_LEN: usize = 8;
/// Where `tx_dropped` is in `struct rtnl_link_stats64`.
const STATISTICS_TX_DROPPED: usize = 7 * size_of::<u64>();

/// A device, as the kernel described it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    pub kind: Kind,
    /// The device this one is a port of.
    pub master: Option<u32>,
    pub mtu: u32,
    /// Its MAC; empty for a device without one.
    pub mac: Vec<u8>,
    /// Frames that may wait to be sent.
    pub queue_len: u32,
    /// Queues that frames may come by.
    pub rx_queues: u32,
    /// Whether it is Ethernet, or is taken for it.
    pub is_ethernet: bool,
    /// Whether it is up, and frames can pass.
    pub is_running: bool,
    pub alias: String,
    /// Frames that the device had to send and lost, for a TAP: those its reader was too slow for.
    pub tx_dropped: u64,
}

/// What sort of device it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    Tap {
        multi_queue: bool,
    },
    /// Its name in `ip -d link`.
    Other(String),
    /// A card, or whatever else has no kind.
    #[default]
    Plain,
}

/// The devices of one network namespace: that of the thread that opened it.
pub(super) struct Links {
    socket: Socket,
}

impl Links {
    pub fn open() -> io::Result<Links> {
        Ok(Links { socket: Socket::open(None)? })
    }

    /// The device of this name, if there is one.
    pub fn find(&self, name: &str) -> io::Result<Option<Link>> {
        present(self.query_one(request(libc::RTM_GETLINK, 0).text(libc::IFLA_IFNAME, name)))
    }

    /// The device with this index, if it still exists.
    pub fn at(&self, index: u32) -> io::Result<Option<Link>> {
        present(self.query_one(request(libc::RTM_GETLINK, index)))
    }

    /// All devices.
    pub fn all(&self) -> io::Result<Vec<Link>> {
        let mut all = Vec::new();
        let dump = Request::new(libc::RTM_GETLINK, netlink::DUMP, &[0; LINK_HEADER_LEN]);
        self.socket.query(dump, |body| all.extend(parse(body)))?;
        Ok(all)
    }

    /// Whether any device is a port of this one.
    pub fn has_ports(&self, index: u32) -> io::Result<bool> {
        let mut any = false;
        let dump = Request::new(libc::RTM_GETLINK, netlink::DUMP, &[0; LINK_HEADER_LEN]);
        self.socket.query(dump, |body| {
            any |= parse(body).is_some_and(|link| link.master == Some(index));
        })?;
        Ok(any)
    }

    /// The ports of every other device than this one, in ascending order.
    pub fn ports_of_others(&self, master: u32) -> io::Result<Vec<u32>> {
        let others = self.enslaved(|m| m != master)?;
        let mut ports: Vec<u32> = others.iter().map(|link| link.index).collect();
        ports.sort_unstable();
        Ok(ports)
    }

    /// The devices that are ports of this one.
    pub fn ports_of(&self, index: u32) -> io::Result<Vec<Link>> {
        self.enslaved(|master| master == index)
    }

    /// The devices whose master is one of these.
    fn enslaved(&self, to: impl Fn(u32) -> bool) -> io::Result<Vec<Link>> {
        let mut ports = Vec::new();
        let dump = Request::new(libc::RTM_GETLINK, netlink::DUMP, &[0; LINK_HEADER_LEN]);
        self.socket.query(dump, |body| {
            ports.extend(parse(body).filter(|link| link.master.is_some_and(&to)));
        })?;
        Ok(ports)
    }

    /// Whether somebody gave the device an IP address; one that it gave itself (link-local) does
    /// not count.
    pub fn has_addresses(&self, index: u32) -> io::Result<bool> {
        let mut any = false;
        let dump = Request::new(libc::RTM_GETADDR, netlink::DUMP, &[0; ADDRESS_HEADER_LEN]);
        self.socket.query(dump, |body| {
            any |= body.get(3).is_some_and(|&scope| scope != libc::RT_SCOPE_LINK)
                && body.get(4..).and_then(read_u32) == Some(index);
        })?;
        Ok(any)
    }

    /// Makes a bridge that forwards at once: no spanning tree, no forward delay.
    ///
    /// # Errors
    /// `EEXIST`, `EPERM`; `EOPNOTSUPP` where the kernel has no bridges.
    pub fn make_bridge(&self, name: &str) -> io::Result<()> {
        let request = Request::new(libc::RTM_NEWLINK, netlink::CREATE, &[0; LINK_HEADER_LEN])
            .text(libc::IFLA_IFNAME, name)
            .nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "bridge").nested(libc::IFLA_INFO_DATA, |data| {
                    data.number(BRIDGE_STP_STATE, 0).number(BRIDGE_FORWARD_DELAY, 0)
                })
            });
        self.socket.execute(request)
    }

    pub fn remove(&self, index: u32) -> io::Result<()> {
        self.socket.execute(request(libc::RTM_DELLINK, index))
    }

    pub fn bring_up(&self, index: u32) -> io::Result<()> {
        let mut header = link_header(index);
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        header[8..12].copy_from_slice(&up);
        header[12..16].copy_from_slice(&up);
        self.socket.execute(Request::new(libc::RTM_SETLINK, 0, &header))
    }

    /// Makes the device a port of `master`.
    pub fn enslave(&self, index: u32, master: u32) -> io::Result<()> {
        self.set(index, |request| request.number(libc::IFLA_MASTER, master))
    }

    /// Makes the device nobody's port.
    pub fn release(&self, index: u32) -> io::Result<()> {
        self.enslave(index, 0)
    }

    pub fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.set(index, |request| request.number(libc::IFLA_MTU, mtu))
    }

    pub fn set_mac(&self, index: u32, mac: &[u8]) -> io::Result<()> {
        self.set(index, |request| request.attribute(libc::IFLA_ADDRESS, mac))
    }

    /// Frames that wait for the device at most.
    pub fn set_queue_len(&self, index: u32, frames: u32) -> io::Result<()> {
        self.set(index, |request| request.number(libc::IFLA_TXQLEN, frames))
    }

    /// A remark for people and for ourselves, kept with the device.
    pub fn set_alias(&self, index: u32, alias: &str) -> io::Result<()> {
        self.set(index, |request| request.attribute(libc::IFLA_IFALIAS, alias.as_bytes()))
    }

    fn set(&self, index: u32, with: impl FnOnce(Request) -> Request) -> io::Result<()> {
        self.socket.execute(with(request(libc::RTM_SETLINK, index)))
    }

    fn query_one(&self, request: Request) -> io::Result<Link> {
        let mut found = None;
        self.socket.query(request, |body| found = parse(body))?;
        found.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

fn present(link: io::Result<Link>) -> io::Result<Option<Link>> {
    match link {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        other => other.map(Some),
    }
}

fn request(kind: u16, index: u32) -> Request {
    Request::new(kind, 0, &link_header(index))
}

fn link_header(index: u32) -> [u8; LINK_HEADER_LEN] {
    let mut header = [0; LINK_HEADER_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

fn parse(body: &[u8]) -> Option<Link> {
    let index = read_u32(body.get(4..)?)?;
    let is_ethernet = body.get(2..).and_then(read_u16) == Some(libc::ARPHRD_ETHER);
    let flags = body.get(8..).and_then(read_u32).unwrap_or_default();
    let running = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
    let is_running = flags & running == running;
    let mut link = Link { index, is_ethernet, is_running, ..Link::default() };
    for (kind, value) in Attributes(body.get(LINK_HEADER_LEN..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = read_text(value),
            libc::IFLA_IFALIAS => link.alias = read_text(value),
            libc::IFLA_ADDRESS => link.mac = value.to_vec(),
            libc::IFLA_MTU => link.mtu = read_u32(value)?,
            libc::IFLA_TXQLEN => link.queue_len = read_u32(value)?,
            RX_QUEUES => link.rx_queues = read_u32(value)?,
            libc::IFLA_MASTER => link.master = read_u32(value),
            libc::IFLA_LINKINFO => link.kind = parse_kind(value),
            libc::IFLA_STATS64 => link.tx_dropped = parse_tx_dropped(value).unwrap_or_default(),
            _ => {}
        }
    }
    Some(link)
}

fn parse_kind(info: &[u8]) -> Kind {
    let of = |wanted| Attributes(info).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let name = of(libc::IFLA_INFO_KIND).map(read_text).unwrap_or_default();
    let data = of(libc::IFLA_INFO_DATA).unwrap_or_default();
    let data_byte = |wanted| {
        Attributes(data).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| value.first())
    };
    match name.as_str() {
        "bridge" => Kind::Bridge,
        "tun" if data_byte(TUN_TYPE).copied() == Some(libc::IFF_TAP as u8) => {
            Kind::Tap { multi_queue: data_byte(TUN_MULTI_QUEUE).is_some_and(|&flag| flag != 0) }
        }
        // A card that is a port of a bridge tells what it is there, and no kind of its own.
        "" => Kind::Plain,
        _ => Kind::Other(name),
    }
}

fn parse_tx_dropped(statistics: &[u8]) -> Option<u64> {
    let value = statistics.get(STATISTICS_TX_DROPPED..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_found_and_is_plain() {
        let links = Links::open().unwrap();
        let loopback = links.find("lo").unwrap().expect("every namespace has one");
        assert_eq!(loopback.name, "lo");
        assert_eq!(loopback.kind, Kind::Plain);
        assert_eq!(loopback.master, None);
        assert!(loopback.mtu >= 1500);
        let again = links.at(loopback.index).unwrap().unwrap();
        assert_eq!((again.index, again.name), (loopback.index, loopback.name));
        assert!(!links.has_ports(loopback.index).unwrap());
        assert!(links.has_addresses(loopback.index).unwrap(), "127.0.0.1 is one of this machine");
        assert!(!links.has_addresses(i32::MAX as u32).unwrap());
    }

    #[test]
    fn a_card_is_plain_as_a_port_of_a_bridge_too() {
        let text = |kind: u16, text: &[u8]| {
            let mut attribute = (4 + text.len() as u16).to_ne_bytes().to_vec();
            attribute.extend(kind.to_ne_bytes());
            attribute.extend(text);
            attribute.resize(attribute.len().next_multiple_of(4), 0);
            attribute
        };
        let slave = text(libc::IFLA_INFO_SLAVE_KIND, b"bridge\0");
        assert_eq!(parse_kind(&slave), Kind::Plain);
        let veth = [text(libc::IFLA_INFO_KIND, b"veth\0"), slave].concat();
        assert_eq!(parse_kind(&veth), Kind::Other("veth".to_owned()));
        assert_eq!(parse_kind(&text(libc::IFLA_INFO_KIND, b"bridge\0")), Kind::Bridge);
    }

    #[test]
    fn a_device_that_is_not_there_is_none_and_no_error() {
        let links = Links::open().unwrap();
        assert_eq!(links.find("vipr-no-such").unwrap(), None);
        assert_eq!(links.at(i32::MAX as u32).unwrap(), None);
    }

    #[test]
    fn a_link_message_of_any_length_parses_or_does_not_but_never_panics() {
        let whole = [7u8; 200];
        for len in 0..whole.len() {
            let parsed = parse(&whole[..len]);
            assert_eq!(parsed.is_some(), len >= LINK_HEADER_LEN, "{len} bytes");
        }
    }
}

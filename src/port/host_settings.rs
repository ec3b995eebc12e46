//! Settings of this host that cost or spare a frame's time, each a number that can be read and
//! written: for `vipr tune`.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::attachment::QUEUE_LEN;
use super::link::{Kind, Links};

/// Requests of `linux/ethtool.h`.
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// A setting of the host or of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Whether bridged frames pass the firewall: `iptables`, `ip6tables` or `arptables`.
    BridgeNetfilter { table: String },
    /// Frames that may wait at a device.
    QueueLen { device: String },
    /// Whether a card joins the frames of a flow together.
    Gro { device: String },
}

impl fmt::Display for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::BridgeNetfilter { table } => {
                write!(formatter, "net.bridge.bridge-nf-call-{table}")
            }
            Setting::QueueLen { device } => write!(formatter, "{device} txqueuelen"),
            Setting::Gro { device } => write!(formatter, "{device} gro"),
        }
    }
}

impl Setting {
    /// Its value; nothing where the host or the device has no such setting.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self) -> io::Result<Option<u32>> {
        match self {
            Setting::BridgeNetfilter { table } => match fs::read_to_string(path(table)) {
                Ok(text) => {
                    text.trim().parse().map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            Setting::QueueLen { device } => {
                Ok(Links::open()?.find(device)?.map(|link| link.queue_len))
            }
            Setting::Gro { device } => match ethtool(device, GET_GRO, 0) {
                Ok(value) => Ok(Some(value)),
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) =>
                {
                    Ok(None)
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// `EPERM`, `EACCES`; `ENODEV` where the device is gone.
    pub fn write(&self, value: u32) -> io::Result<()> {
        match self {
            Setting::BridgeNetfilter { table } => fs::write(path(table), value.to_string()),
            Setting::QueueLen { device } => {
                let links = Links::open()?;
                let link = links.find(device)?;
                let link = link.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
                links.set_queue_len(link.index, value)
            }
            Setting::Gro { device } => ethtool(device, SET_GRO, value).map(|_| ()),
        }
    }

    /// What is enough of it.
    pub const fn wanted(&self) -> u32 {
        match self {
            Setting::BridgeNetfilter { .. } | Setting::Gro { .. } => 0,
            Setting::QueueLen { .. } => QUEUE_LEN,
        }
    }

    /// Whether a value costs speed.
    pub const fn is_costly(&self, value: u32) -> bool {
        match self {
            Setting::BridgeNetfilter { .. } | Setting::Gro { .. } => value != 0,
            Setting::QueueLen { .. } => value < QUEUE_LEN,
        }
    }
}

/// What is joined to a bridge beside the director.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePorts {
    /// Names of the ports that are no TAPs.
    pub others: Vec<String>,
    /// Whether the host has an address there.
    pub has_address: bool,
}

/// The ports of a bridge; nothing if there is none of that name.
///
/// # Errors
/// When the kernel does not say.
pub fn bridge_ports(bridge: &str) -> io::Result<Option<BridgePorts>> {
    let links = Links::open()?;
    let Some(bridge) = links.find(bridge)?.filter(|link| link.kind == Kind::Bridge) else {
        return Ok(None);
    };
    let ports = links.ports_of(bridge.index)?;
    let others = ports
        .into_iter()
        .filter(|port| !matches!(port.kind, Kind::Tap { .. }))
        .map(|port| port.name)
        .collect();
    Ok(Some(BridgePorts { others, has_address: links.has_addresses(bridge.index)? }))
}

fn path(table: &str) -> String {
    format!("/proc/sys/net/bridge/bridge-nf-call-{table}")
}

/// Asks a device's driver for a number, or gives it one.
fn ethtool(device: &str, command: u32, value: u32) -> io::Result<u32> {
    let socket: OwnedFd =
        socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    /// `struct ethtool_value`.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut argument = Value { command, data: value };
    // SAFETY: an all-zero `ifreq` is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut argument).cast();
    // SAFETY: the kernel reads and writes `request` and the `ethtool_value` that it points to, which
    // live through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(argument.data) }
}

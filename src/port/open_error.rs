//! Why a TAP and its bridge, an interface or a socket could not be had. Each `Display` is one line: what, where, and what
//! to do about it.

use std::io;

/// A port could not be opened. Nothing half-made is left behind.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a name a network device can have.
    #[error(
        "{role} {name:?}: not a device name ({why}): \
         use 1 to 15 letters, digits, '-', '_' and '.'"
    )]
    BadName {
        /// `TAP` or `bridge`.
        role: &'static str,
        name: String,
        why: &'static str,
    },
    /// `/dev/net/tun` is missing, or the kernel has no driver for it.
    #[error(
        "TAP {tap}: /dev/net/tun does not work ({error}): load the driver (modprobe tun), in a \
         container pass the device in (--device /dev/net/tun)"
    )]
    NoTunDriver { tap: String, error: io::Error },
    /// `/dev/net/tun` may not be opened.
    #[error(
        "TAP {tap}: /dev/net/tun may not be opened ({error}): run vipr as root, or give its user \
         read and write access to /dev/net/tun"
    )]
    TunForbidden { tap: String, error: io::Error },
    /// The privilege to manage network devices is missing.
    #[error(
        "{role} {name}: not permitted to {action}: run vipr as root or with CAP_NET_ADMIN \
         (setcap cap_net_admin+ep, or AmbientCapabilities= in the systemd unit)"
    )]
    NotPermitted { role: &'static str, name: String, action: &'static str },
    /// Another program has the TAP open.
    #[error(
        "TAP {tap}: in use by another program: stop that program (another vipr?) or configure \
         another tap"
    )]
    TapBusy { tap: String },
    /// The TAP's name belongs to a device of another kind.
    #[error(
        "TAP {name}: that name belongs to {found}: configure another tap, or remove that device \
         (ip link delete {name})"
    )]
    NotATap { name: String, found: String },
    /// A TAP that was made with several queues cannot be opened with one.
    #[error(
        "TAP {tap}: it was made with multi_queue, which vipr does not use: make it again \
         (ip tuntap del {tap} mode tap multi_queue; ip tuntap add {tap} mode tap)"
    )]
    TapMultiQueue { tap: String },
    /// The TAP is a port of something else than the configured bridge.
    #[error(
        "TAP {tap}: it is a port of {found} already, not of {bridge}: release it \
         (ip link set {tap} nomaster) or configure bridge = \"{found}\""
    )]
    TapElsewhere { tap: String, bridge: String, found: String },
    /// The bridge's name belongs to a device of another kind.
    #[error(
        "bridge {name}: that name belongs to {found}: configure another bridge, or remove that \
         device (ip link delete {name})"
    )]
    NotABridge { name: String, found: String },
    /// No card has the configured name or MAC address.
    #[error("card {wanted}: there is none here; there are: {there_are}: configure one as uplink")]
    NoSuchCard { wanted: String, there_are: String },
    /// The uplink's name belongs to a device that leads nowhere.
    #[error("card {name}: that name belongs to {found}; cards are: {there_are}: configure one")]
    NotACard { name: String, found: String, there_are: String },
    /// The card is a port of something else than the configured bridge.
    #[error(
        "card {card}: it is a port of {found} already, not of {bridge}: release it \
         (ip link set {card} nomaster) or configure bridge = \"{found}\""
    )]
    CardElsewhere { card: String, bridge: String, found: String },
    /// The kernel cannot make bridges.
    #[error("bridge {name}: this kernel has no bridges: load the driver (modprobe bridge)")]
    NoBridgeDriver { name: String },
    /// The device does not take the configured MTU.
    #[error("TAP {tap}: the device refuses an MTU of {mtu} ({error}): configure mtu = 68 to 65521")]
    Mtu { tap: String, mtu: u16, error: io::Error },
    /// There is no such interface.
    #[error(
        "interface {name}: there is none of that name: configure one that ip link shows, or make it \
         first"
    )]
    NoInterface { name: String },
    /// The interface carries something else than Ethernet.
    #[error("interface {name}: it is not Ethernet: configure another interface")]
    NotEthernet { name: String },
    /// The interface hands its frames to another device.
    #[error(
        "interface {name}: it is a port of {master}, which takes its frames: configure interface = \
         \"{master}\", or release it (ip link set {name} nomaster)"
    )]
    InterfaceEnslaved { name: String, master: String },
    /// The host would answer what is sent to the director.
    #[error(
        "interface {name}: {mac} is its own MAC: the host would answer what the director is sent: \
         configure another mac, or none"
    )]
    MacOfHost { name: String, mac: crate::wire::MacAddr },
    /// The interface carries less than is configured.
    #[error(
        "interface {name}: its MTU is {device}, less than the configured {mtu}: remove mtu, or \
         raise the interface's (ip link set {name} mtu {mtu})"
    )]
    InterfaceMtu { name: String, device: u32, mtu: u16 },
    /// The privilege to hear an interface is missing.
    #[error(
        "interface {name}: not permitted to {action}: run vipr as root or with CAP_NET_RAW and \
         CAP_NET_ADMIN (setcap cap_net_raw,cap_net_admin+ep, or AmbientCapabilities= in the \
         systemd unit)"
    )]
    RawForbidden { name: String, action: &'static str },
    /// The kernel has no packet sockets.
    #[error(
        "interface {name}: this kernel has no packet sockets ({error}): load the driver (modprobe \
         af_packet), or attach by a TAP"
    )]
    NoPacketSockets { name: String, error: io::Error },
    /// The kernel has no XDP sockets.
    #[error(
        "interface {name}: this kernel cannot {action} ({error}): configure attach = \"packet\""
    )]
    NoXdp { name: String, action: &'static str, error: io::Error },
    /// The privilege for programs in the kernel is missing.
    #[error(
        "interface {name}: not permitted to {action}: run vipr as root or with CAP_BPF, CAP_NET_RAW \
         and CAP_NET_ADMIN, or configure attach = \"packet\""
    )]
    XdpForbidden { name: String, action: &'static str },
    /// Another program has the interface.
    #[error(
        "interface {name}: another XDP program is on it: detach that (ip link set {name} xdp off), \
         or configure attach = \"packet\""
    )]
    XdpBusy { name: String },
    /// Memory for the rings may not be locked.
    #[error(
        "interface {name}: each of its queues needs {needed} KiB of locked memory, and the limit is \
         {limit} KiB: raise it (LimitMEMLOCK=infinity in the systemd unit, ulimit -l unlimited), or \
         configure attach = \"packet\""
    )]
    MemoryLock { name: String, needed: u64, limit: u64 },
    /// Somebody listens on the socket.
    #[error(
        "socket {path}: another program listens there: stop that program (another vipr?) or \
         configure another socket"
    )]
    SocketTaken { path: String },
    /// The socket's name is that of something else.
    #[error(
        "socket {path}: there is something else of that name: remove it, or configure another socket"
    )]
    NotASocket { path: String },
    /// The socket cannot be listened on.
    #[error("socket {path}: cannot listen ({error}): {}", socket_remedy(error))]
    Socket { path: String, error: io::Error },
    /// Anything else the kernel refused.
    #[error("{role} {name}: cannot {action}: {error}")]
    Refused { role: &'static str, name: String, action: &'static str, error: io::Error },
}

impl OpenError {
    /// What the kernel refused, in general terms.
    pub(super) fn refused(
        role: &'static str,
        name: &str,
        action: &'static str,
        error: io::Error,
    ) -> OpenError {
        let name = name.to_owned();
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted { role, name, action },
            _ => OpenError::Refused { role, name, action, error },
        }
    }
}

fn socket_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make its directory, or configure another socket",
        _ => "run vipr as a user who may make files there, or configure another socket",
    }
}

/// Refuses what the kernel would refuse, cut short, or take for a pattern.
///
/// The rules are `dev_valid_name` of the kernel's `net/core/dev.c`; a `%` would make it number
/// the device.
pub(super) fn validate_name(role: &'static str, name: &str) -> Result<(), OpenError> {
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it is a directory's",
        _ if name.len() >= libc::IFNAMSIZ => "it is longer than 15 bytes",
        _ if name.contains(|letter: char| {
            matches!(letter, '/' | ':' | '%') || letter.is_whitespace() || letter.is_control()
        }) =>
        {
            "it has a letter that no device name may have"
        }
        _ => return Ok(()),
    };
    Err(OpenError::BadName { role, name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_mangle_are_refused() {
        let rows = [
            ("tap0", true),
            ("vipr-front", true),
            ("a.b_c-d", true),
            ("fifteen-letters", true),
            ("sixteen--letters", false),
            ("", false),
            (".", false),
            ("..", false),
            ("tap 0", false),
            ("tap/0", false),
            ("tap:0", false),
            ("tap%d", false),
            ("tap\0", false),
            ("tap\n", false),
        ];
        for (name, expected) in rows {
            assert_eq!(validate_name("TAP", name).is_ok(), expected, "{name:?}");
        }
    }

    #[test]
    fn every_error_is_one_line_that_begins_with_its_subject() {
        let error = || io::Error::from_raw_os_error(libc::EINVAL);
        let name = || "x0".to_owned();
        let tap = name;
        let rows = [
            validate_name("TAP", "a\nb").unwrap_err(),
            OpenError::NoTunDriver { tap: tap(), error: error() },
            OpenError::TunForbidden { tap: tap(), error: error() },
            OpenError::NotPermitted { role: "TAP", name: name(), action: "make it" },
            OpenError::TapBusy { tap: tap() },
            OpenError::NotATap { name: name(), found: "a bridge".to_owned() },
            OpenError::TapMultiQueue { tap: tap() },
            OpenError::TapElsewhere { tap: tap(), bridge: name(), found: name() },
            OpenError::NotABridge { name: name(), found: "a card".to_owned() },
            OpenError::NoBridgeDriver { name: name() },
            OpenError::Mtu { tap: tap(), mtu: 9, error: error() },
            OpenError::NoSuchCard { wanted: name(), there_are: "none".to_owned() },
            OpenError::NotACard { name: name(), found: name(), there_are: name() },
            OpenError::CardElsewhere { card: name(), bridge: name(), found: name() },
            OpenError::refused("bridge", "x0", "make it", error()),
            OpenError::SocketTaken { path: name() },
            OpenError::NotASocket { path: name() },
            OpenError::Socket { path: name(), error: error() },
        ];
        for error in rows {
            let line = error.to_string();
            assert!(!line.contains('\n'), "{line}");
            let subjects = ["TAP ", "bridge ", "card ", "socket "];
            assert!(subjects.iter().any(|subject| line.starts_with(subject)), "{line}");
        }
    }

    #[test]
    fn a_missing_privilege_is_told_apart_from_any_other_refusal() {
        let of =
            |errno| OpenError::refused("TAP", "x0", "make it", io::Error::from_raw_os_error(errno));
        assert!(matches!(of(libc::EPERM), OpenError::NotPermitted { .. }));
        assert!(matches!(of(libc::EEXIST), OpenError::Refused { .. }));
    }
}

//! Whether this host's firewall eats frames on their way through a bridge.
//!
//! With br_netfilter loaded and `net.bridge.bridge-nf-call-*` at 1, the IP packets in bridged
//! frames pass the host's FORWARD chain. Docker sets both that and a policy of DROP, and then a
//! client on the same bridge as the director's TAP gets no answer, without a trace. So `vipr run`
//! looks, and says so.
//!
//! The policy is read where the kernel keeps it: the chains of nf_tables through nfnetlink
//! (iptables-nft, nft, firewalld), and the table of old iptables by its socket option. What
//! cannot be read counts as a reason to warn: the sysctl alone is suspicious. The rules before
//! the policy are not judged; the warning speaks only of frames that none of them accepts. ARP has
//! a setting of its own, but only rules of the old arptables can see forwarded ARP; these are
//! not looked at.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

use super::netlink::{Attributes, DUMP, Request, Socket, read_text, read_u32};

/// A reason to expect that bridged frames are lost. `Display` is one line, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeNetfilterWarning {
    /// The setting that sends bridged frames through the firewall, such as
    /// `net.bridge.bridge-nf-call-iptables`.
    pub sysctl: &'static str,
    /// The command that lets bridged frames through.
    pub accept: &'static str,
    pub cause: Cause,
}

/// What is known of the firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The policy of this chain is DROP.
    PolicyDrop {
        /// Table and chain, such as `ip filter FORWARD`.
        chain: String,
    },
    /// The policy cannot be read, for this reason.
    PolicyUnknown {
        /// The kernel's answer.
        error: String,
    },
}

impl fmt::Display for BridgeNetfilterWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BridgeNetfilterWarning { sysctl, accept, cause } = self;
        write!(formatter, "br_netfilter: {sysctl} is 1 and ")?;
        match cause {
            Cause::PolicyDrop { chain } => write!(
                formatter,
                "the policy of {chain} is DROP: bridged frames that no rule accepts are lost"
            )?,
            Cause::PolicyUnknown { error } => write!(
                formatter,
                "the policy of FORWARD cannot be read ({error}): bridged frames may be lost"
            )?,
        }
        write!(formatter, ": sysctl -w {sysctl}=0, or {accept}")
    }
}

/// Looks at this host (the network namespace of the calling thread). Nothing to say is empty.
pub fn check() -> Vec<BridgeNetfilterWarning> {
    HOOKS.iter().filter_map(Hook::check).collect()
}

/// One family of packets that br_netfilter hands to the firewall.
struct Hook {
    sysctl: &'static str,
    file: &'static str,
    accept: &'static str,
    /// Families of nf_tables whose chains these packets pass (`NFPROTO_*`), with their names.
    families: &'static [(u8, &'static str)],
    legacy: Legacy,
}

/// The old iptables of one family (`linux/netfilter_ipv4/ip_tables.h` and its IPv6 twin).
struct Legacy {
    /// Lists the tables in use. To ask for a table that is not would load its module.
    tables: &'static str,
    family: AddressFamily,
    /// `SOL_IP`, `SOL_IPV6`.
    level: libc::c_int,
    /// Where a rule keeps the offset of its target: after the addresses and `nfcache`.
    target_offset: usize,
}

const HOOKS: [Hook; 2] = [
    Hook {
        sysctl: "net.bridge.bridge-nf-call-iptables",
        file: "/proc/sys/net/bridge/bridge-nf-call-iptables",
        accept: "iptables -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
        families: &[(libc::NFPROTO_IPV4 as u8, "ip"), (libc::NFPROTO_INET as u8, "inet")],
        legacy: Legacy {
            tables: "/proc/thread-self/net/ip_tables_names",
            family: AddressFamily::INET,
            level: libc::SOL_IP,
            target_offset: 88,
        },
    },
    Hook {
        sysctl: "net.bridge.bridge-nf-call-ip6tables",
        file: "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
        accept: "ip6tables -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
        families: &[(libc::NFPROTO_IPV6 as u8, "ip6"), (libc::NFPROTO_INET as u8, "inet")],
        legacy: Legacy {
            tables: "/proc/thread-self/net/ip6_tables_names",
            family: AddressFamily::INET6,
            level: libc::SOL_IPV6,
            target_offset: 140,
        },
    },
];

impl Hook {
    fn check(&self) -> Option<BridgeNetfilterWarning> {
        // Absent without br_netfilter.
        let setting = fs::read_to_string(self.file).ok()?;
        if setting.trim() == "0" {
            return None;
        }
        let cause = match self.dropping_chain() {
            Ok(chain) => Cause::PolicyDrop { chain: chain? },
            Err(error) => Cause::PolicyUnknown { error: error.to_string() },
        };
        Some(BridgeNetfilterWarning { sysctl: self.sysctl, accept: self.accept, cause })
    }

    /// The first chain found whose policy is DROP.
    fn dropping_chain(&self) -> io::Result<Option<String>> {
        for (family, name) in self.families {
            if let Some(chain) = nftables_dropping_chain(*family)? {
                return Ok(Some(format!("{name} {chain}")));
            }
        }
        let legacy = self.legacy.drops()?;
        Ok(legacy.then(|| format!("{} filter FORWARD (iptables-legacy)", self.families[0].1)))
    }
}

/// Attributes of a chain (`linux/netfilter/nf_tables.h`). Numbers are in network byte order.
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_FORWARD`.
const FORWARD: u32 = libc::NF_INET_FORWARD as u32;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `struct nfgenmsg`: family, version, resource.
const NETFILTER_HEADER_LEN: usize = 4;

/// Table and name of a base chain of this family that drops forwarded packets by policy.
fn nftables_dropping_chain(family: u8) -> io::Result<Option<String>> {
    let socket = match Socket::open(Some(netlink::NETFILTER)) {
        Ok(socket) => socket,
        Err(error) if no_such_part(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = ((libc::NFNL_SUBSYS_NFTABLES << 8) | libc::NFT_MSG_GETCHAIN) as u16;
    let mut found = None;
    let dumped = socket.query(Request::new(kind, DUMP, &[family, 0, 0, 0]), |body| {
        if found.is_none() {
            found = dropping_chain(body);
        }
    });
    match dumped {
        Err(error) if no_such_part(&error) => Ok(None),
        result => result.map(|()| found),
    }
}

/// Whether the kernel does not have what was asked, rather than not telling.
fn no_such_part(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
    )
}

fn dropping_chain(body: &[u8]) -> Option<String> {
    let (mut table, mut name, mut hook, mut policy) = (None, None, None, None);
    for (kind, value) in Attributes(body.get(NETFILTER_HEADER_LEN..)?) {
        match kind {
            CHAIN_TABLE => table = Some(read_text(value)),
            CHAIN_NAME => name = Some(read_text(value)),
            CHAIN_POLICY => policy = read_u32(value).map(u32::from_be),
            CHAIN_HOOK => {
                hook = Attributes(value)
                    .find(|(kind, _)| *kind == HOOK_NUMBER)
                    .and_then(|(_, value)| read_u32(value).map(u32::from_be));
            }
            _ => {}
        }
    }
    let drops = hook == Some(FORWARD) && policy == Some(DROP);
    drops.then(|| format!("{} {}", table.unwrap_or_default(), name.unwrap_or_default()))
}

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; the same numbers for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `struct ipt_getinfo`: name, valid hooks, five offsets of the hooks' rules, five of their
/// policies, number and size of the entries.
const INFO_LEN: usize = 84;
const INFO_POLICY_OFFSETS: usize = 56;
const INFO_ENTRIES_LEN: usize = 80;
/// `struct ipt_get_entries` before the entries: name, size, padding.
const ENTRIES_HEADER_LEN: usize = 40;
/// `struct xt_standard_target` before its verdict.
const VERDICT_OFFSET: usize = 32;
/// A verdict is the negated `NF_*` less one.
const VERDICT_DROP: i32 = -1;
const TABLE: &[u8] = b"filter";
/// More than the largest table anyone has; the kernel says how much there is.
const ENTRIES_LEN_MAX: usize = 256 << 20;

impl Legacy {
    /// Whether the table exists and the policy of its FORWARD chain is DROP.
    fn drops(&self) -> io::Result<bool> {
        let tables = match fs::read_to_string(self.tables) {
            Ok(tables) => tables,
            // This kernel has no old iptables, or it is not loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if !tables.lines().any(|table| table.as_bytes() == TABLE) {
            return Ok(false);
        }
        let socket = socket_with(self.family, SocketType::RAW, SocketFlags::CLOEXEC, Some(RAW))?;
        let mut info = vec![0; INFO_LEN];
        info[..TABLE.len()].copy_from_slice(TABLE);
        self.ask(&socket, GET_INFO, &mut info)?;
        let number = |at: usize| info.get(at..).and_then(read_u32).map(|value| value as usize);
        let policy = number(INFO_POLICY_OFFSETS + FORWARD as usize * size_of::<u32>());
        let len = number(INFO_ENTRIES_LEN);
        let (Some(policy), Some(len @ ..=ENTRIES_LEN_MAX)) = (policy, len) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut entries = vec![0; ENTRIES_HEADER_LEN + len];
        entries[..TABLE.len()].copy_from_slice(TABLE);
        entries[32..36].copy_from_slice(&(len as u32).to_ne_bytes());
        self.ask(&socket, GET_ENTRIES, &mut entries)?;
        let verdict = self.verdict(&entries[ENTRIES_HEADER_LEN..], policy);
        verdict
            .map(|verdict| verdict == VERDICT_DROP)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The verdict of the rule at `offset`, which has a standard target.
    fn verdict(&self, entries: &[u8], offset: usize) -> Option<i32> {
        let rule = entries.get(offset..)?;
        let target = rule.get(self.target_offset..)?.first_chunk()?;
        let target = rule.get(usize::from(u16::from_ne_bytes(*target))..)?;
        read_u32(target.get(VERDICT_OFFSET..)?).map(u32::cast_signed)
    }

    fn ask(&self, socket: &OwnedFd, option: libc::c_int, answer: &mut [u8]) -> io::Result<()> {
        let mut len = answer.len() as libc::socklen_t;
        // SAFETY: the socket is open, and the kernel writes at most `len` bytes to `answer`,
        // which is that long and lives through the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                self.level,
                option,
                answer.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// A raw socket for a protocol number reserved for that; nothing is sent or received.
const RAW: rustix::net::Protocol = rustix::net::ipproto::RAW;

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(hook: Option<u32>, policy: Option<u32>) -> Vec<u8> {
        let mut request = Request::new(0, 0, &[libc::NFPROTO_IPV4 as u8, 0, 0, 0])
            .text(CHAIN_TABLE, "filter")
            .text(CHAIN_NAME, "FORWARD");
        if let Some(hook) = hook {
            request = request.nested(CHAIN_HOOK, |nested| nested.number(HOOK_NUMBER, hook.to_be()));
        }
        if let Some(policy) = policy {
            request = request.number(CHAIN_POLICY, policy.to_be());
        }
        request.finish(0)[16..].to_vec()
    }

    #[test]
    fn only_a_base_chain_that_drops_what_is_forwarded_counts() {
        let rows = [
            ("FORWARD, DROP", Some(2), Some(0), true),
            ("FORWARD, ACCEPT", Some(2), Some(1), false),
            ("INPUT, DROP", Some(1), Some(0), false),
            ("a chain without a hook", None, None, false),
        ];
        for (what, hook, policy, expected) in rows {
            assert_eq!(dropping_chain(&chain(hook, policy)).is_some(), expected, "{what}");
        }
        assert_eq!(dropping_chain(&chain(Some(2), Some(0))).unwrap(), "filter FORWARD");
        assert_eq!(dropping_chain(&[]), None);
    }

    #[test]
    fn the_verdict_of_a_rule_is_found_or_missing_but_never_out_of_bounds() {
        let legacy = &HOOKS[0].legacy;
        let mut entries = vec![0; 300];
        entries[100 + 88..100 + 90].copy_from_slice(&112u16.to_ne_bytes());
        let verdict = 100 + 112 + VERDICT_OFFSET;
        entries[verdict..verdict + 4].copy_from_slice(&VERDICT_DROP.to_ne_bytes());
        assert_eq!(legacy.verdict(&entries, 100), Some(VERDICT_DROP));
        for len in 0..verdict + 4 {
            assert_eq!(legacy.verdict(&entries[..len], 100), None, "{len} bytes");
        }
        assert_eq!(legacy.verdict(&entries, usize::MAX), None);
    }

    #[test]
    fn a_warning_is_one_line_with_the_remedy() {
        let causes = [
            Cause::PolicyDrop { chain: "ip filter FORWARD".to_owned() },
            Cause::PolicyUnknown { error: "Operation not permitted".to_owned() },
        ];
        for cause in causes {
            let (sysctl, accept) = (HOOKS[0].sysctl, HOOKS[0].accept);
            let line = BridgeNetfilterWarning { sysctl, accept, cause }.to_string();
            assert!(!line.contains('\n'));
            assert!(line.contains("sysctl -w net.bridge.bridge-nf-call-iptables=0"), "{line}");
            assert!(line.contains("iptables -I FORWARD -m physdev"), "{line}");
        }
    }
}

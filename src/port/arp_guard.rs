//! A guard on a bridge of this host: nobody but the director's TAP claims a VIP through it.
//!
//! It is a table of nf_tables in the bridge family, made over netlink, that sees ARP and neighbour
//! discovery and nothing else. What would claim a VIP is dropped: ARP replies and gratuitous ARP
//! with the VIP as its sender, neighbour advertisements for it, and solicitations from it. A real
//! server that *asks* in the name of the VIP (Linux with `arp_announce=0` looks for its client so)
//! has to get its answer: its question goes on as an ARP probe, without a sender (RFC 5227, 2.1.1).
//!
//! Which bridge a frame is on cannot be asked of every kernel (`nft_meta_bridge` is a module of
//! its own, and may be missing). So the ports of *other* bridges are excepted, and a port that
//! nobody knows yet is guarded. [`ArpGuard::refresh`] keeps that list.
//!
//! Tagged frames are seen like others, whether or not the bridge filters VLANs: the kernel has taken
//! the outer tag off (802.1Q or 802.1ad) before a bridge's hooks. So a VIP is guarded in all VLANs of
//! the bridge: which of them an untagged port is in is decided later. What is within a second tag is
//! another network's, to which no segment leads, and is left alone.
//!
//! The table belongs to the socket that made it: the kernel removes it when the socket is closed,
//! however the program ends. Kernels before 5.12 do not know that; there the table is removed by
//! [`Drop`], and what a crash left is replaced at the next start.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustix::net::netlink;

use super::link::Links;
use super::netlink::{APPEND, Attributes, CREATE_OR_KEEP, DUMP, Request, Socket, read_text};

/// What the tables are called, before the name of the TAP.
pub const TABLE_PREFIX: &str = "vipr-arp-guard-";

/// `NFPROTO_BRIDGE` of `linux/netfilter.h`.
const BRIDGE: u8 = 7;
/// `NFNL_SUBSYS_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const SUBSYSTEM: u16 = 10;

/// Elements of a set in one message, far below the 64 KiB of an attribute.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// Numbers of `linux/netfilter/nf_tables.h`.
mod nft {
    pub const NEWTABLE: u16 = 0;
    pub const GETTABLE: u16 = 1;
    pub const DELTABLE: u16 = 2;
    pub const NEWCHAIN: u16 = 3;
    pub const NEWRULE: u16 = 6;
    pub const GETRULE: u16 = 7;
    pub const NEWSET: u16 = 9;
    pub const NEWSETELEM: u16 = 12;
    pub const DELSETELEM: u16 = 14;

    pub const TABLE_NAME: u16 = 1;
    pub const TABLE_FLAGS: u16 = 2;
    pub const TABLE_OWNER: u32 = 2;

    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const CHAIN_TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;

    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const LIST_ELEM: u16 = 1;
    pub const EXPR_NAME: u16 = 1;
    pub const EXPR_DATA: u16 = 2;

    pub const SET_TABLE: u16 = 1;
    pub const SET_NAME: u16 = 2;
    pub const SET_KEY_TYPE: u16 = 4;
    pub const SET_KEY_LEN: u16 = 5;
    pub const SET_ID: u16 = 10;
    pub const ELEMENTS_TABLE: u16 = 1;
    pub const ELEMENTS_SET: u16 = 2;
    pub const ELEMENTS: u16 = 3;
    pub const ELEMENT_KEY: u16 = 1;

    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
    pub const VERDICT_CODE: u16 = 1;
    pub const COUNTER_PACKETS: u16 = 2;

    pub const META_PROTOCOL: u32 = 1;
    pub const META_IIF: u32 = 4;
    pub const META_OIF: u32 = 5;
    pub const META_IIFNAME: u32 = 6;
    pub const META_L4PROTO: u32 = 16;
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;

    pub const DROP: u32 = 0;
    pub const ACCEPT: u32 = 1;
}

/// Hooks of `linux/netfilter_bridge.h`, and the priority of a bridge's filter.
const PRE_ROUTING: u32 = 0;
const LOCAL_OUT: u32 = 3;
const PRIORITY: i32 = -200;

/// Chains: what comes in by a port, and what the host itself sends.
const FROM_PORTS: &str = "from-ports";
const FROM_HOST: &str = "from-host";

/// Sets, with how `nft list` is to show their keys.
struct Set {
    name: &'static str,
    /// `TYPE_IPADDR`, `TYPE_IP6ADDR`, `TYPE_IFINDEX` of nft's own numbering.
    key_type: u32,
    key_len: u32,
}
const VIPS4: Set = Set { name: "vips4", key_type: 7, key_len: 4 };
const VIPS6: Set = Set { name: "vips6", key_type: 8, key_len: 16 };
const ELSEWHERE: Set = Set { name: "ports-of-other-bridges", key_type: 20, key_len: 4 };

/// Why a bridge is not guarded. `Display` is one line, with the remedy.
#[derive(Debug)]
pub enum GuardError {
    /// The kernel has no nf_tables, or not for bridges.
    Unsupported(io::Error),
    NotPermitted,
    /// Another program holds the table of this TAP.
    Taken {
        table: String,
    },
    NoBridge {
        bridge: String,
    },
    Refused {
        action: &'static str,
        error: io::Error,
    },
}

impl fmt::Display for GuardError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuardError::Unsupported(error) => write!(
                formatter,
                "arp_guard: this kernel has no nf_tables for bridges ({error}): load it (modprobe \
                 nf_tables; CONFIG_NF_TABLES_BRIDGE), or remove arp_guard and keep the real servers \
                 quiet themselves"
            ),
            GuardError::NotPermitted => write!(
                formatter,
                "arp_guard: nf_tables may not be changed: run vipr as root or with CAP_NET_ADMIN"
            ),
            GuardError::Taken { table } => write!(
                formatter,
                "arp_guard: table bridge {table} belongs to another program: end it"
            ),
            GuardError::NoBridge { bridge } => {
                write!(formatter, "arp_guard: there is no bridge {bridge}")
            }
            GuardError::Refused { action, error } => {
                write!(formatter, "arp_guard: nf_tables would not {action}: {error}")
            }
        }
    }
}

impl std::error::Error for GuardError {}

/// The guard of one bridge, for as long as it is held.
pub struct ArpGuard {
    socket: Socket,
    links: Links,
    news: Socket,
    table: String,
    bridge: String,
    /// What is in the sets.
    vips4: Vec<Ipv4Addr>,
    vips6: Vec<Ipv6Addr>,
    elsewhere: Vec<u32>,
    owned: bool,
}

impl ArpGuard {
    /// Guards `bridge`: from now on only `tap` claims a VIP through it. There are none yet; see
    /// [`Self::set_vips`]. What an earlier program left of this guard is replaced.
    ///
    /// # Errors
    /// One line of what is in the way and what to do. Nothing is left behind.
    pub fn new(tap: &str, bridge: &str) -> Result<ArpGuard, GuardError> {
        let open = || Socket::open(Some(netlink::NETFILTER));
        let table = format!("{TABLE_PREFIX}{tap}");
        let links = Links::open().map_err(refused("look at devices"))?;
        // First the news, then the look: so nothing is missed.
        let news = Socket::listen_to_links().map_err(refused("watch devices"))?;
        let mut guard = ArpGuard {
            socket: open().map_err(GuardError::Unsupported)?,
            links,
            news,
            table,
            bridge: bridge.to_owned(),
            vips4: Vec::new(),
            vips6: Vec::new(),
            elsewhere: Vec::new(),
            owned: true,
        };
        guard.elsewhere = guard.ports_of_other_bridges()?;
        if let Err(error) = guard.socket.transact(SUBSYSTEM, vec![guard.delete_table()])
            && error.raw_os_error() == Some(libc::EPERM)
        {
            return Err(guard.forbidden());
        }
        // Nothing was left, or it is gone now.
        match guard.make(tap, true) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                guard.owned = false;
                guard.make(tap, false).map_err(unsupported)?;
            }
            other => other.map_err(unsupported)?,
        }
        Ok(guard)
    }

    /// Sets which addresses are guarded.
    ///
    /// # Errors
    /// When the kernel refuses; what was guarded before is guarded still.
    pub fn set_vips(&mut self, vips4: &[Ipv4Addr], vips6: &[Ipv6Addr]) -> Result<(), GuardError> {
        let mut batch = Vec::new();
        if self.vips4 != vips4 {
            batch.push(self.flush(&VIPS4));
            batch.extend(self.add(&VIPS4, vips4.iter().map(Ipv4Addr::octets)));
        }
        if self.vips6 != vips6 {
            batch.push(self.flush(&VIPS6));
            batch.extend(self.add(&VIPS6, vips6.iter().map(Ipv6Addr::octets)));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.socket.transact(SUBSYSTEM, batch).map_err(refused("take in the VIPs"))?;
        self.vips4 = vips4.to_vec();
        self.vips6 = vips6.to_vec();
        Ok(())
    }

    /// Follows what became of this host's devices since the last time. Cheap if nothing did.
    ///
    /// # Errors
    /// When the kernel refuses, or the table is gone: the guard is to be made anew.
    pub fn refresh(&mut self) -> Result<(), GuardError> {
        if !self.news.has_news() {
            return Ok(());
        }
        let elsewhere = self.ports_of_other_bridges()?;
        if elsewhere == self.elsewhere {
            return Ok(());
        }
        let mut batch = vec![self.flush(&ELSEWHERE)];
        batch.extend(self.add(&ELSEWHERE, elsewhere.iter().map(|index| index.to_ne_bytes())));
        self.socket.transact(SUBSYSTEM, batch).map_err(refused("take in the ports"))?;
        self.elsewhere = elsewhere;
        Ok(())
    }

    /// Frames that were dropped or lost their sender.
    ///
    /// # Errors
    /// When the kernel refuses, or the table is gone.
    pub fn blocked(&self) -> io::Result<u64> {
        let mut blocked = 0;
        let request = Request::new(kind(nft::GETRULE), DUMP, &header(BRIDGE))
            .text(nft::RULE_TABLE, &self.table);
        self.socket.query(request, |body| blocked += counted(body).unwrap_or(0))?;
        Ok(blocked)
    }

    /// Why a table may not be changed: nobody may without the capability, and a table that belongs
    /// to another program only that program.
    fn forbidden(&self) -> GuardError {
        let tables = Request::new(kind(nft::GETTABLE), DUMP, &header(BRIDGE));
        match self.socket.query(tables, |_| {}) {
            Ok(()) => GuardError::Taken { table: self.table.clone() },
            Err(_) => GuardError::NotPermitted,
        }
    }

    fn ports_of_other_bridges(&self) -> Result<Vec<u32>, GuardError> {
        let bridge = self.links.find(&self.bridge).map_err(refused("look at devices"))?;
        let bridge = bridge.ok_or_else(|| GuardError::NoBridge { bridge: self.bridge.clone() })?;
        self.links.ports_of_others(bridge.index).map_err(refused("look at devices"))
    }

    /// Makes the table and what is in it, at one blow.
    fn make(&self, tap: &str, owned: bool) -> io::Result<()> {
        let mut batch = vec![self.new_table(owned)];
        for (id, set) in [&VIPS4, &VIPS6, &ELSEWHERE].into_iter().enumerate() {
            batch.push(
                self.message(nft::NEWSET)
                    .text(nft::SET_TABLE, &self.table)
                    .text(nft::SET_NAME, set.name)
                    .attribute(nft::SET_KEY_TYPE, &set.key_type.to_be_bytes())
                    .attribute(nft::SET_KEY_LEN, &set.key_len.to_be_bytes())
                    .attribute(nft::SET_ID, &(id as u32 + 1).to_be_bytes()),
            );
        }
        let elsewhere = self.elsewhere.iter().map(|index| index.to_ne_bytes());
        batch.extend(self.add(&ELSEWHERE, elsewhere));
        for (chain, hook) in [(FROM_PORTS, PRE_ROUTING), (FROM_HOST, LOCAL_OUT)] {
            batch.push(self.new_chain(chain, hook));
            batch.extend(
                rules(chain, tap).into_iter().map(|expressions| self.rule(chain, expressions)),
            );
        }
        self.socket.transact(SUBSYSTEM, batch)
    }

    fn message(&self, message: u16) -> Request {
        Request::new(kind(message), CREATE_OR_KEEP, &header(BRIDGE))
    }

    fn new_table(&self, owned: bool) -> Request {
        let flags = if owned { nft::TABLE_OWNER } else { 0 };
        self.message(nft::NEWTABLE)
            .text(nft::TABLE_NAME, &self.table)
            .attribute(nft::TABLE_FLAGS, &flags.to_be_bytes())
    }

    fn delete_table(&self) -> Request {
        Request::new(kind(nft::DELTABLE), 0, &header(BRIDGE)).text(nft::TABLE_NAME, &self.table)
    }

    fn new_chain(&self, chain: &str, hook: u32) -> Request {
        self.message(nft::NEWCHAIN)
            .text(nft::CHAIN_TABLE, &self.table)
            .text(nft::CHAIN_NAME, chain)
            .nested(nft::CHAIN_HOOK, |attributes| {
                attributes
                    .attribute(nft::HOOK_NUMBER, &hook.to_be_bytes())
                    .attribute(nft::HOOK_PRIORITY, &PRIORITY.to_be_bytes())
            })
            .attribute(nft::CHAIN_POLICY, &nft::ACCEPT.to_be_bytes())
            .text(nft::CHAIN_TYPE, "filter")
    }

    fn rule(&self, chain: &str, expressions: Vec<Expression>) -> Request {
        Request::new(kind(nft::NEWRULE), APPEND, &header(BRIDGE))
            .text(nft::RULE_TABLE, &self.table)
            .text(nft::RULE_CHAIN, chain)
            .nested(nft::RULE_EXPRESSIONS, |list| {
                expressions.into_iter().fold(list, |list, expression| {
                    list.nested(nft::LIST_ELEM, |element| expression.put(element))
                })
            })
    }

    fn flush(&self, set: &Set) -> Request {
        Request::new(kind(nft::DELSETELEM), 0, &header(BRIDGE))
            .text(nft::ELEMENTS_TABLE, &self.table)
            .text(nft::ELEMENTS_SET, set.name)
    }

    fn add<const N: usize>(&self, set: &Set, keys: impl Iterator<Item = [u8; N]>) -> Vec<Request> {
        let keys: Vec<[u8; N]> = keys.collect();
        keys.chunks(ELEMENTS_PER_MESSAGE)
            .map(|keys| {
                self.message(nft::NEWSETELEM)
                    .text(nft::ELEMENTS_TABLE, &self.table)
                    .text(nft::ELEMENTS_SET, set.name)
                    .nested(nft::ELEMENTS, |list| {
                        keys.iter().fold(list, |list, key| {
                            list.nested(nft::LIST_ELEM, |element| {
                                element.nested(nft::ELEMENT_KEY, |data| {
                                    data.attribute(nft::DATA_VALUE, key)
                                })
                            })
                        })
                    })
            })
            .collect()
    }
}

impl Drop for ArpGuard {
    fn drop(&mut self) {
        // An owned table goes with the socket.
        if !self.owned {
            let _ = self.socket.transact(SUBSYSTEM, vec![self.delete_table()]);
        }
    }
}

/// One expression of a rule. What is read goes into the first register.
enum Expression {
    Meta(u32),
    Payload {
        base: u32,
        offset: u32,
        len: u32,
    },
    Is(Vec<u8>),
    IsNot(Vec<u8>),
    In(&'static Set),
    Load(Vec<u8>),
    /// Overwrites bytes of the network header.
    Store {
        offset: u32,
        len: u32,
    },
    Count,
    Verdict(u32),
}

impl Expression {
    fn put(self, element: Request) -> Request {
        const REGISTER: u32 = 1;
        let number = |data: Request, kind, value: u32| data.attribute(kind, &value.to_be_bytes());
        let compare = |data: Request, operation, value: &[u8]| {
            number(number(data, 1, REGISTER), 2, operation)
                .nested(3, |data| data.attribute(nft::DATA_VALUE, value))
        };
        let named = |name| element.text(nft::EXPR_NAME, name);
        match self {
            Expression::Meta(key) => named("meta")
                .nested(nft::EXPR_DATA, |data| number(number(data, 1, REGISTER), 2, key)),
            Expression::Payload { base, offset, len } => {
                named("payload").nested(nft::EXPR_DATA, |data| {
                    let data = number(number(data, 1, REGISTER), 2, base);
                    number(number(data, 3, offset), 4, len)
                })
            }
            Expression::Is(value) => {
                named("cmp").nested(nft::EXPR_DATA, |data| compare(data, 0, &value))
            }
            Expression::IsNot(value) => {
                named("cmp").nested(nft::EXPR_DATA, |data| compare(data, 1, &value))
            }
            Expression::In(set) => named("lookup")
                .nested(nft::EXPR_DATA, |data| number(data.text(1, set.name), 2, REGISTER)),
            Expression::Load(value) => named("immediate").nested(nft::EXPR_DATA, |data| {
                number(data, 1, REGISTER).nested(2, |data| data.attribute(nft::DATA_VALUE, &value))
            }),
            Expression::Store { offset, len } => named("payload").nested(nft::EXPR_DATA, |data| {
                let data = number(number(data, 2, nft::NETWORK), 3, offset);
                number(number(data, 4, len), 5, REGISTER)
            }),
            Expression::Count => named("counter").nested(nft::EXPR_DATA, |data| data),
            Expression::Verdict(code) => named("immediate").nested(nft::EXPR_DATA, |data| {
                number(data, 1, 0).nested(2, |data| {
                    data.nested(nft::DATA_VERDICT, |data| number(data, nft::VERDICT_CODE, code))
                })
            }),
        }
    }
}

/// The rules of a chain, in their order.
fn rules(chain: &str, tap: &str) -> Vec<Vec<Expression>> {
    use Expression::{Count, In, Is, IsNot, Load, Meta, Payload, Store, Verdict};
    let is = |value: &[u8]| Is(value.to_vec());
    let network = |offset, len| Payload { base: nft::NETWORK, offset, len };
    let transport = |offset, len| Payload { base: nft::TRANSPORT, offset, len };
    // ARP for IPv4 over Ethernet (hardware, protocol, lengths) with a VIP as its sender.
    let claims = || {
        vec![
            Meta(nft::META_PROTOCOL),
            is(&[0x08, 0x06]),
            network(0, 6),
            is(&[0, 1, 8, 0, 6, 4]),
            network(14, 4),
            In(&VIPS4),
        ]
    };
    let with = |mut rule: Vec<Expression>, more: Vec<Expression>| {
        rule.extend(more);
        rule
    };
    let icmpv6 = |kind: u8| {
        vec![
            Meta(nft::META_PROTOCOL),
            is(&[0x86, 0xdd]),
            Meta(nft::META_L4PROTO),
            is(&[58]),
            transport(0, 1),
            is(&[kind]),
        ]
    };
    let mut rules = Vec::new();
    if chain == FROM_PORTS {
        let mut name = tap.as_bytes().to_vec();
        name.resize(libc::IFNAMSIZ, 0);
        rules.push(vec![Meta(nft::META_IIFNAME), Is(name), Verdict(nft::ACCEPT)]);
        rules.push(vec![Meta(nft::META_IIF), In(&ELSEWHERE), Verdict(nft::ACCEPT)]);
    } else {
        rules.push(vec![Meta(nft::META_OIF), In(&ELSEWHERE), Verdict(nft::ACCEPT)]);
    }
    // Anything but a question.
    let not_a_request = vec![network(6, 2), IsNot(vec![0, 1]), Count, Verdict(nft::DROP)];
    rules.push(with(claims(), not_a_request));
    // A question for a VIP in the name of a VIP: an announcement.
    rules.push(with(claims(), vec![network(24, 4), In(&VIPS4), Count, Verdict(nft::DROP)]));
    // A question for somebody else: without its sender it is harmless.
    rules.push(with(
        claims(),
        vec![Count, Load(vec![0; 4]), Store { offset: 14, len: 4 }, Verdict(nft::ACCEPT)],
    ));
    // A neighbour advertisement names its target, a solicitation its sender.
    rules.push(with(icmpv6(136), vec![transport(8, 16), In(&VIPS6), Count, Verdict(nft::DROP)]));
    rules.push(with(icmpv6(135), vec![network(8, 16), In(&VIPS6), Count, Verdict(nft::DROP)]));
    rules
}

/// What the counter in a rule counted, if it has one.
fn counted(body: &[u8]) -> Option<u64> {
    let expressions = find(body.get(4..)?, nft::RULE_EXPRESSIONS)?;
    Attributes(expressions).find_map(|(_, expression)| {
        let name = read_text(find(expression, nft::EXPR_NAME)?);
        let data = find(expression, nft::EXPR_DATA)?;
        let packets = find(data, nft::COUNTER_PACKETS).filter(|_| name == "counter")?;
        Some(u64::from_be_bytes(*packets.first_chunk()?))
    })
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    Attributes(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The type of a message to nf_tables.
const fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// `struct nfgenmsg`: family, version, resource.
const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn refused(action: &'static str) -> impl Fn(io::Error) -> GuardError {
    move |error| GuardError::Refused { action, error }
}

fn unsupported(error: io::Error) -> GuardError {
    match error.raw_os_error() {
        Some(libc::EPERM) => GuardError::NotPermitted,
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOENT) => {
            GuardError::Unsupported(error)
        }
        _ => GuardError::Refused { action: "make the table", error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tap_and_other_bridges_pass_first_and_what_drops_counts() {
        for (chain, excepted) in [(FROM_PORTS, 2), (FROM_HOST, 1)] {
            let rules = rules(chain, "vipr-front");
            assert_eq!(rules.len(), excepted + 5);
            for (at, rule) in rules.iter().enumerate() {
                let Some(Expression::Verdict(verdict)) = rule.last() else {
                    panic!("{chain}: rule {at} does not end in a verdict")
                };
                let counts = rule.iter().any(|part| matches!(part, Expression::Count));
                let stores = rule.iter().any(|part| matches!(part, Expression::Store { .. }));
                let accepts = at < excepted || stores;
                assert_eq!(*verdict == nft::ACCEPT, accepts, "{chain}: rule {at}");
                assert_eq!(counts, at >= excepted, "{chain}: rule {at}");
            }
        }
    }

    #[test]
    fn a_counter_is_read_from_the_rule_it_is_in() {
        let rule = Request::new(kind(nft::NEWRULE), 0, &header(BRIDGE))
            .text(nft::RULE_CHAIN, FROM_PORTS)
            .nested(nft::RULE_EXPRESSIONS, |list| {
                let list = list.nested(nft::LIST_ELEM, |e| Expression::Meta(1).put(e));
                list.nested(nft::LIST_ELEM, |element| {
                    element.text(nft::EXPR_NAME, "counter").nested(nft::EXPR_DATA, |data| {
                        data.attribute(1, &[0; 8])
                            .attribute(nft::COUNTER_PACKETS, &7u64.to_be_bytes())
                    })
                })
            })
            .finish(1);
        assert_eq!(counted(&rule[16..]), Some(7));
        for len in 0..rule.len() - 16 {
            let _ = counted(&rule[16..16 + len]);
        }
    }
}

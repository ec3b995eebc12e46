//! The network cards of this machine, for those who have to choose among them.

use std::io;

use super::link::{Kind, Link, Links};
use crate::wire::MacAddr;

/// Cards in a line; a host of containers has hundreds.
const LISTED_MAX: usize = 8;

/// A card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardInfo {
    pub name: String,
    pub mac: MacAddr,
}

/// All cards: not bridges, TAPs, tunnels, nor loopback.
///
/// # Errors
/// When the kernel does not say.
pub fn all() -> io::Result<Vec<CardInfo>> {
    Ok(of(&Links::open()?.all()?))
}

/// `eth0 (52:54:00:00:00:01), eth1 (52:54:00:00:00:02)`, or `none`.
pub fn listed(cards: &[CardInfo]) -> String {
    if cards.is_empty() {
        return "none".to_owned();
    }
    let one = |card: &CardInfo| format!("{} ({})", card.name, card.mac);
    let shown = cards.iter().take(LISTED_MAX).map(one).collect::<Vec<_>>().join(", ");
    match cards.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

pub(super) fn of(links: &[Link]) -> Vec<CardInfo> {
    links.iter().filter_map(card).collect()
}

/// A device as a card, if it is one.
pub(super) fn card(link: &Link) -> Option<CardInfo> {
    let mac = MacAddr(<[u8; 6]>::try_from(link.mac.as_slice()).ok()?);
    let leads_outside = match &link.kind {
        Kind::Plain => true,
        Kind::Other(kind) => matches!(kind.as_str(), "veth" | "bond" | "macvlan" | "team"),
        Kind::Bridge | Kind::Tap { .. } => false,
    };
    (leads_outside && mac != MacAddr::ZERO).then(|| CardInfo { name: link.name.clone(), mac })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_told_from_what_leads_nowhere() {
        let link = |name: &str, kind: Kind, mac: &[u8]| Link {
            name: name.to_owned(),
            kind,
            mac: mac.to_vec(),
            ..Link::default()
        };
        let mac = [0x52, 0x54, 0, 0, 0, 1];
        let links = [
            link("lo", Kind::Plain, &[0; 6]),
            link("eth0", Kind::Plain, &mac),
            link("br0", Kind::Bridge, &mac),
            link("tap0", Kind::Tap { multi_queue: false }, &mac),
            link("tun0", Kind::Plain, &[]),
            link("veth0", Kind::Other("veth".into()), &mac),
            link("vlan7", Kind::Other("vlan".into()), &mac),
        ];
        let found = of(&links);
        assert_eq!(listed(&found), "eth0 (52:54:00:00:00:01), veth0 (52:54:00:00:00:01)");
        assert_eq!(listed(&of(&links[..1])), "none");
        let many = vec![found[0].clone(); LISTED_MAX + 3];
        assert!(listed(&many).ends_with(" and 3 more"));
    }
}

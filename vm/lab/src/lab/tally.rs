//! What passed on the segments, counted by who sent it to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Different lines of a tally; what would be more is not counted one by one.
const LINES_MAX: usize = 4096;

pub type Mac = [u8; 6];

/// A kind of frame that a story tells about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// TCP: from, to.
    Tcp(Ipv4Addr, Ipv4Addr),
    /// Somebody says by ARP, as an answer, that an address is theirs.
    ArpReply(Ipv4Addr),
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    segment: String,
    machine: String,
    source: Mac,
    destination: Mac,
    kind: Kind,
}

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    lines: BTreeMap<Line, u64>,
}

impl Tally {
    /// A frame left a machine.
    pub fn note(&mut self, segment: &str, machine: &str, frame: &[u8]) {
        let (Some(destination), Some(source)) = (mac(frame, 0), mac(frame, 6)) else { return };
        let line = Line {
            segment: segment.to_owned(),
            machine: machine.to_owned(),
            source,
            destination,
            kind: kind(frame),
        };
        if self.lines.len() < LINES_MAX || self.lines.contains_key(&line) {
            *self.lines.entry(line).or_default() += 1;
        }
    }

    /// All frames of a segment.
    #[cfg(test)]
    pub fn frames(&self, segment: &str) -> u64 {
        self.lines.iter().filter(|(line, _)| line.segment == segment).map(|(_, count)| count).sum()
    }

    /// The MAC addresses that answered ARP for an address, anywhere.
    pub fn arp_answerers(&self, address: Ipv4Addr) -> BTreeSet<Mac> {
        let answers = self.lines.keys().filter(|line| line.kind == Kind::ArpReply(address));
        answers.map(|line| line.source).collect()
    }

    /// TCP frames to `vip` by the machine that sent them and the MAC they were sent to.
    pub fn requests(&self, vip: Ipv4Addr) -> BTreeMap<(String, Mac), u64> {
        let mut requests = BTreeMap::new();
        for (line, count) in &self.lines {
            if matches!(line.kind, Kind::Tcp(_, to) if to == vip) {
                *requests.entry((line.machine.clone(), line.destination)).or_default() += count;
            }
        }
        requests
    }

    /// TCP frames from `vip` by the machine that sent them and the MAC they were sent to.
    pub fn replies(&self, vip: Ipv4Addr) -> BTreeMap<(String, Mac), u64> {
        let mut replies = BTreeMap::new();
        for (line, count) in &self.lines {
            if matches!(line.kind, Kind::Tcp(from, _) if from == vip) {
                *replies.entry((line.machine.clone(), line.destination)).or_default() += count;
            }
        }
        replies
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

fn address(frame: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?))
}

fn kind(frame: &[u8]) -> Kind {
    let found = match frame.get(12..14) {
        Some([0x08, 0x06]) if frame.get(20..22) == Some(&[0, 2]) => {
            address(frame, 28).map(Kind::ArpReply)
        }
        Some([0x08, 0x00]) if frame.get(23) == Some(&6) => {
            address(frame, 26).zip(address(frame, 30)).map(|(from, to)| Kind::Tcp(from, to))
        }
        _ => None,
    };
    found.unwrap_or(Kind::Other)
}

/// As people write it.
pub fn text(mac: &Mac) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

    fn frame(to: u8, from: u8, kind: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from];
        frame.extend_from_slice(kind);
        frame.resize(60, 0);
        frame
    }

    fn tcp(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut kind = vec![0; 22];
        (kind[0], kind[11]) = (0x08, 6);
        kind[14..18].copy_from_slice(&from.octets());
        kind[18..22].copy_from_slice(&to.octets());
        kind
    }

    fn arp(operation: u8, sender: Ipv4Addr) -> Vec<u8> {
        let mut kind = vec![0; 20];
        (kind[0], kind[1], kind[9]) = (0x08, 0x06, operation);
        kind[16..20].copy_from_slice(&sender.octets());
        kind
    }

    #[test]
    fn requests_replies_and_arp_answers_are_told_apart() {
        let mut tally = Tally::default();
        tally.note("front", "client", &frame(1, 9, &tcp(CLIENT, VIP)));
        tally.note("front", "client", &frame(1, 9, &tcp(CLIENT, VIP)));
        tally.note("back", "director", &frame(5, 2, &tcp(CLIENT, VIP)));
        tally.note("front", "rs1", &frame(9, 6, &tcp(VIP, CLIENT)));
        tally.note("front", "director", &frame(9, 1, &arp(2, VIP)));
        tally.note("front", "client", &frame(0xff, 9, &arp(1, CLIENT)));
        tally.note("front", "client", &[0; 13]);
        let mac = |last: u8| [2, 0, 0, 0, 0, last];
        assert_eq!(
            tally.requests(VIP).into_iter().collect::<Vec<_>>(),
            [(("client".to_owned(), mac(1)), 2), (("director".to_owned(), mac(5)), 1)]
        );
        assert_eq!(
            tally.replies(VIP).into_iter().collect::<Vec<_>>(),
            [(("rs1".to_owned(), mac(9)), 1)]
        );
        assert_eq!(tally.arp_answerers(VIP).into_iter().collect::<Vec<_>>(), [mac(1)]);
        assert!(tally.arp_answerers(CLIENT).is_empty(), "that was a question");
        assert_eq!(tally.frames("front"), 6);
    }
}

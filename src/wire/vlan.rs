//! VLAN tags (IEEE 802.1Q and 802.1ad), which travel beside a frame and not in it: whoever takes
//! frames from a wire takes the outer tag out ([`pop`]), and puts one in again on the way out.

use core::fmt;

/// Bytes of a tag.
pub const TAG_LEN: usize = 4;

/// Where in a frame it is: behind the two addresses.
const TAG_AT: usize = 12;

/// The largest VLAN there is; 4095 is reserved (802.1Q, 9.6), and 0 is none.
pub const VLAN_MAX: u16 = 4094;

/// Which of the two kinds of tag, by its EtherType.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagKind {
    /// 802.1Q: a customer's.
    #[default]
    Customer,
    /// 802.1ad: a provider's.
    Service,
}

impl TagKind {
    const fn ether_type(self) -> [u8; 2] {
        match self {
            TagKind::Customer => [0x81, 0x00],
            TagKind::Service => [0x88, 0xa8],
        }
    }

    /// As it is called in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            TagKind::Customer => "802.1Q",
            TagKind::Service => "802.1ad",
        }
    }
}

/// A VLAN, as a segment may be on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vlan {
    pub kind: TagKind,
    /// 1 to [`VLAN_MAX`].
    pub id: u16,
}

impl fmt::Display for Vlan {
    /// `10`, `10 (802.1ad)`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TagKind::Customer => write!(formatter, "{}", self.id),
            TagKind::Service => write!(formatter, "{} ({})", self.id, self.kind.name()),
        }
    }
}

/// A frame's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    kind: TagKind,
    /// Priority and drop eligibility (4 bits), and the VLAN (12 bits).
    control: u16,
}

impl Tag {
    /// The tag of a frame of a VLAN, with the priority of the tag it had before.
    pub fn new(vlan: Vlan, before: Option<Tag>) -> Tag {
        let priority = before.map_or(0, |tag| tag.control & 0xf000);
        Tag { kind: vlan.kind, control: priority | vlan.id & 0x0fff }
    }

    /// The VLAN; `None` for a tag that only has a priority (802.1Q, 6.9).
    pub const fn vlan(self) -> Option<Vlan> {
        match self.control & 0x0fff {
            0 => None,
            id => Some(Vlan { kind: self.kind, id }),
        }
    }

    /// As it is in a frame.
    pub const fn to_bytes(self) -> [u8; TAG_LEN] {
        let [a, b] = self.kind.ether_type();
        let [c, d] = self.control.to_be_bytes();
        [a, b, c, d]
    }
}

/// Takes the outer tag out of a frame, which then is in `bytes` from [`TAG_LEN`] on.
#[inline]
pub fn pop(bytes: &mut [u8]) -> Option<Tag> {
    let (head, _) = bytes.split_first_chunk_mut::<{ TAG_AT + TAG_LEN }>()?;
    let kind = match [head[TAG_AT], head[TAG_AT + 1]] {
        [0x81, 0x00] => TagKind::Customer,
        [0x88, 0xa8] => TagKind::Service,
        _ => return None,
    };
    let control = u16::from_be_bytes([head[TAG_AT + 2], head[TAG_AT + 3]]);
    head.copy_within(..TAG_AT, TAG_LEN);
    Some(Tag { kind, control })
}

/// Puts a tag into a frame that is in `bytes` from [`TAG_LEN`] on; then the frame is all of them.
#[inline]
pub fn push(bytes: &mut [u8], tag: Tag) {
    if let Some((head, _)) = bytes.split_first_chunk_mut::<{ TAG_AT + TAG_LEN }>() {
        head.copy_within(TAG_LEN.., 0);
        head[TAG_AT..].copy_from_slice(&tag.to_bytes());
    }
}

/// A copy of a frame with a tag in it, appended to a buffer.
pub fn copy_tagged(buffer: &mut Vec<u8>, frame: &[u8], tag: Tag) {
    let (addresses, rest) = frame.split_at(frame.len().min(TAG_AT));
    buffer.extend_from_slice(addresses);
    buffer.extend_from_slice(&tag.to_bytes());
    buffer.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;

    #[test]
    fn what_is_pushed_is_popped() {
        for kind in [TagKind::Customer, TagKind::Service] {
            for id in [1, 10, VLAN_MAX] {
                let vlan = Vlan { kind, id };
                let tag = Tag::new(vlan, None);
                let mut tagged = Vec::new();
                copy_tagged(&mut tagged, &TCP_SYN, tag);
                assert_eq!(tagged[12..14], kind.ether_type());
                assert_eq!(tagged[14..16], id.to_be_bytes());

                let mut pushed = vec![0xee; TAG_LEN];
                pushed.extend(TCP_SYN);
                push(&mut pushed, tag);
                assert_eq!(pushed, tagged);

                assert_eq!(pop(&mut pushed), Some(tag));
                assert_eq!(pushed[TAG_LEN..], TCP_SYN);
                assert_eq!(tag.vlan(), Some(vlan));
            }
        }
    }

    #[test]
    fn frames_without_a_tag_are_left_alone() {
        for sample in ALL {
            for len in 0..sample.len() {
                let mut bytes = sample[..len].to_vec();
                assert_eq!(pop(&mut bytes), None);
                assert_eq!(bytes, sample[..len]);
            }
        }
        // A tag cut short is none.
        let mut tagged = Vec::new();
        copy_tagged(&mut tagged, &TCP_SYN, Tag::new(Vlan { kind: TagKind::Customer, id: 1 }, None));
        for len in 0..TAG_AT + TAG_LEN {
            assert_eq!(pop(&mut tagged[..len].to_vec()), None, "{len}");
        }
    }

    #[test]
    fn a_priority_goes_along_and_is_no_vlan() {
        let mut frame = [&TCP_SYN[..12], &[0x81, 0x00, 0xb0, 0x00], &TCP_SYN[12..]].concat();
        let priority = pop(&mut frame).unwrap();
        assert_eq!(priority.vlan(), None);
        let vlan = Vlan { kind: TagKind::Service, id: 7 };
        assert_eq!(Tag::new(vlan, Some(priority)).to_bytes(), [0x88, 0xa8, 0xb0, 0x07]);
    }
}

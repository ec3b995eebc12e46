//! Who the candidates are, beyond their numbers, and where each went when the list changed.

use core::net::IpAddr;
use std::collections::BTreeMap;

use crate::director::destination::DestinationId;

/// A candidate as those schedulers see it that must know it again: in another place of the list,
/// or, by its address, on another director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: DestinationId,
    pub address: IpAddr,
    /// Its weight; while that is 0, the last one that was not (0 if there was none).
    pub last_weight: u32,
}

/// The order of the list as a scheduler saw it last.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    ids: Vec<DestinationId>,
}

impl Roster {
    /// Takes over a new list; where the candidates of the last one went, unless all stayed.
    pub fn change(&mut self, members: &[Member]) -> Option<Moves> {
        let stayed = self.ids.iter().zip(members).take_while(|(id, member)| **id == member.id);
        let head = stayed.count();
        if head == self.ids.len() && head == members.len() {
            return None;
        }
        let after: BTreeMap<DestinationId, u32> =
            (head as u32..).zip(&members[head..]).map(|(at, member)| (member.id, at)).collect();
        let moved = self.ids[head..].iter().map(|id| after.get(id).copied());
        let to = (0..head as u32).map(Some).chain(moved).collect();
        self.ids.clear();
        self.ids.extend(members.iter().map(|member| member.id));
        Some(Moves { to })
    }
}

/// Where each candidate of a list is in the next one.
#[derive(Clone, Debug)]
pub(super) struct Moves {
    to: Vec<Option<u32>>,
}

impl Moves {
    pub fn of(&self, before: u32) -> Option<u32> {
        self.to.get(before as usize).copied().flatten()
    }

    /// Of the candidates at `before` and ahead of it, where the last one is that stayed.
    pub fn of_last_until(&self, before: u32) -> Option<u32> {
        let until = self.to.len().min(before as usize + 1);
        self.to[..until].iter().rev().copied().flatten().next()
    }
}

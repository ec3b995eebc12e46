//! Doubly linked lists through numbered nodes: constant-time removal from the middle, and no
//! memory of their own but two numbers a node.

use super::ConnectionId;

/// No node.
pub(super) const NIL: u32 = u32::MAX;

/// Which of a node's links a list goes through: its slot of the timer wheel.
pub(super) const TIMER: usize = 0;
/// Which of a node's links a list goes through: its eviction class.
pub(super) const CLASS: usize = 1;

/// What is kept of a connection beside its entry, and is not touched by its packets. 28 bytes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    links: [Link; 2],
    /// Of a template: the connections that point at it.
    pub(super) controlled: u32,
    /// The template of a connection, or [`ConnectionId::NONE`].
    pub(super) control: ConnectionId,
}

impl Node {
    pub(super) const UNUSED: Node = Node {
        links: [Link { previous: NIL, next: NIL }; 2],
        controlled: 0,
        control: ConnectionId::NONE,
    };

    /// Of a slot that is in no list, as no connection is in it: the next of its kind.
    pub(super) const fn next_vacant(&self) -> u32 {
        self.links[TIMER].next
    }

    pub(super) const fn set_next_vacant(&mut self, slot: u32) {
        self.links[TIMER].next = slot;
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

/// A list of nodes through their link `WHICH`. A node is in at most one such list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<const WHICH: usize> {
    first: u32,
    last: u32,
}

impl<const WHICH: usize> List<WHICH> {
    pub(super) const EMPTY: List<WHICH> = List { first: NIL, last: NIL };

    pub(super) const fn is_empty(&self) -> bool {
        self.first == NIL
    }

    /// The node that has been in the list longest.
    pub(super) const fn first(&self) -> Option<u32> {
        if self.first == NIL { None } else { Some(self.first) }
    }

    /// Appends a node that is in no list of this kind.
    pub(super) fn push(&mut self, nodes: &mut [Node], node: u32) {
        nodes[node as usize].links[WHICH] = Link { previous: self.last, next: NIL };
        match self.last {
            NIL => self.first = node,
            last => nodes[last as usize].links[WHICH].next = node,
        }
        self.last = node;
    }

    /// Takes out a node that is in this very list.
    pub(super) fn unlink(&mut self, nodes: &mut [Node], node: u32) {
        let Link { previous, next } = nodes[node as usize].links[WHICH];
        match previous {
            NIL => self.first = next,
            previous => nodes[previous as usize].links[WHICH].next = next,
        }
        match next {
            NIL => self.last = previous,
            next => nodes[next as usize].links[WHICH].previous = previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(list: &List<TIMER>, nodes: &[Node]) -> Vec<u32> {
        let forward = |from: u32| (from != NIL).then_some(from);
        let nodes_of = core::iter::successors(list.first(), |node| {
            forward(nodes[*node as usize].links[TIMER].next)
        });
        let forwards: Vec<u32> = nodes_of.collect();
        let mut backwards: Vec<u32> = core::iter::successors(forward(list.last), |node| {
            forward(nodes[*node as usize].links[TIMER].previous)
        })
        .collect();
        backwards.reverse();
        assert_eq!(forwards, backwards, "both directions agree");
        forwards
    }

    #[test]
    fn nodes_leave_from_anywhere_and_the_rest_keep_their_order() {
        for (leaves, rest) in [
            (vec![0], vec![1, 2, 3]),
            (vec![3], vec![0, 1, 2]),
            (vec![1], vec![0, 2, 3]),
            (vec![1, 2], vec![0, 3]),
            (vec![0, 3, 1, 2], vec![]),
        ] {
            let mut nodes = vec![Node::UNUSED; 4];
            let mut list = List::<TIMER>::EMPTY;
            let mut other = List::<CLASS>::EMPTY;
            for node in 0..4 {
                list.push(&mut nodes, node);
                other.push(&mut nodes, node);
            }
            for node in &leaves {
                list.unlink(&mut nodes, *node);
            }
            assert_eq!(walk(&list, &nodes), rest);
            assert_eq!(list.is_empty(), rest.is_empty());
            for node in &leaves {
                list.push(&mut nodes, *node);
            }
            assert_eq!(walk(&list, &nodes), [rest, leaves].concat(), "they come back at the end");
            assert_eq!(other.first(), Some(0), "the other kind of list is untouched");
        }
    }
}

//! Slabs whose keys are never mistaken for one another: a handle carries the generation of its
//! slot, so one that outlived its entry finds nothing instead of a stranger.

use core::fmt;
use core::marker::PhantomData;

use slab::Slab;

/// Refers to an entry of an [`Arena<T>`], for as long as that entry lives.
pub struct Id<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// Refers to no entry of any arena.
    pub const NOWHERE: Id<T> = Id { index: u32::MAX, generation: u32::MAX, of: PhantomData };

    /// An id of another type with the same numbers, for tests of tables that only compare ids.
    #[cfg(test)]
    pub fn cast<U>(self) -> Id<U> {
        Id { index: self.index, generation: self.generation, of: PhantomData }
    }

    /// The slot, for tables kept in parallel; another entry may have it after this one.
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

// Derives would ask the same of `T`.
impl<T> Clone for Id<T> {
    fn clone(&self) -> Id<T> {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Id<T>) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Id<T> {}

impl<T> core::hash::Hash for Id<T> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}

impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Id<T>) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Id<T>) -> core::cmp::Ordering {
        (self.index, self.generation).cmp(&(other.index, other.generation))
    }
}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.index, self.generation)
    }
}

/// A slab of `T` with generations. Small tables only: connections have one of their own.
pub struct Arena<T> {
    entries: Slab<(u32, T)>,
    next_generation: u32,
}

impl<T> Default for Arena<T> {
    fn default() -> Arena<T> {
        Arena { entries: Slab::new(), next_generation: 0 }
    }
}

impl<T> Arena<T> {
    pub fn insert(&mut self, value: T) -> Id<T> {
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let index = self.entries.insert((generation, value));
        // Configurations hold far fewer than 2^32 entries; validation caps them.
        Id { index: index as u32, generation, of: PhantomData }
    }

    pub fn get(&self, id: Id<T>) -> Option<&T> {
        match self.entries.get(id.index()) {
            Some((generation, value)) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        match self.entries.get_mut(id.index()) {
            Some((generation, value)) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        self.get(id)?;
        self.entries.try_remove(id.index()).map(|(_, value)| value)
    }

    /// In the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        self.entries.iter().map(|(index, (generation, value))| {
            (Id { index: index as u32, generation: *generation, of: PhantomData }, value)
        })
    }

    /// In the order of the slots.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Id<T>, &mut T)> {
        self.entries.iter_mut().map(|(index, (generation, value))| {
            (Id { index: index as u32, generation: *generation, of: PhantomData }, value)
        })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_that_outlived_its_entry_finds_nothing() {
        let mut arena = Arena::default();
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert("second");
        assert_eq!(first.index(), second.index(), "the slot is used again");
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
    }
}

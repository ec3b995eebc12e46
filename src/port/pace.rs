//! How many frames to read before the first of them is dealt with.
//!
//! Where a frame costs a system call to read, so does finding out that there is none left. While
//! frames come alone that is wasted: the frame that is there waits for it, and the next one may
//! have come by the time this one is sent. So no more is read at once than came at once before, a
//! few times; then all there is. Under load that is a whole burst.

/// How often no more is read than is expected.
const TURNS: u32 = 4;

/// How frames came so far.
#[derive(Debug)]
pub struct Pace {
    /// Read at once at most, the last time until there was none left.
    expected: usize,
    /// The same since then.
    largest: usize,
    /// How often some were read since then.
    turns: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { expected: 1, largest: 0, turns: 0 }
    }
}

impl Pace {
    /// How many frames to read now, `capacity` at most.
    pub fn limit(&self, capacity: usize) -> usize {
        if self.turns < TURNS { self.expected.min(capacity) } else { capacity }
    }

    /// Takes in that so many frames were read and there may be more.
    pub fn note_more(&mut self, frames: usize) {
        self.turns = self.turns.saturating_add(1);
        self.largest = self.largest.max(frames);
    }

    /// Takes in that so many frames were read and there are no more. A look in vain says nothing.
    pub fn note_drained(&mut self, frames: usize) {
        if frames == 0 && self.turns == 0 {
            return;
        }
        *self = Pace { expected: self.largest.max(frames).max(1), largest: 0, turns: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the bursts that frames are dealt with in, and how often it was found out that
    /// there were none: `queues` is how many frames have come each time one looks after a pause.
    fn bursts(pace: &mut Pace, queues: &[usize]) -> (Vec<usize>, usize) {
        let (mut bursts, mut in_vain) = (Vec::new(), 0);
        for &queue in queues {
            let mut queue = queue;
            loop {
                let limit = pace.limit(64);
                let burst = queue.min(limit);
                queue -= burst;
                if burst > 0 {
                    bursts.push(burst);
                }
                if burst == limit {
                    pace.note_more(burst);
                } else {
                    pace.note_drained(burst);
                    in_vain += 1;
                    break;
                }
            }
        }
        (bursts, in_vain)
    }

    #[test]
    fn frames_are_dealt_with_before_it_is_asked_for_more_than_are_expected() {
        let mut pace = Pace::default();
        assert_eq!(bursts(&mut pace, &[1, 1]), (vec![1, 1], 2));
        assert_eq!(bursts(&mut pace, &[3, 4]), (vec![1, 1, 1, 1, 1, 1, 1], 2));
        assert_eq!(bursts(&mut pace, &[9, 5, 6]), (vec![1, 1, 1, 1, 5, 5, 5, 1], 3));
        assert_eq!(bursts(&mut pace, &[2, 2]), (vec![2, 2], 2), "fewer than expected");
        assert_eq!(bursts(&mut pace, &[0, 1]), (vec![1], 2), "woken in vain");
    }

    #[test]
    fn under_load_bursts_are_whole() {
        let mut pace = Pace::default();
        assert_eq!(bursts(&mut pace, &[200]).0, [1, 1, 1, 1, 64, 64, 64, 4]);
        assert_eq!(bursts(&mut pace, &[1000]).0[..15], [64; 15]);
        assert_eq!(bursts(&mut pace, &[0, 0, 1000]).0[..15], [64; 15], "after looks in vain");
    }
}

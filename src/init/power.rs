//! The power button: the machine's host asks by it that the machine ends.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

/// `struct input_event` of `linux/input.h`: a time of two longs, type, code, value.
const EVENT_LEN: usize = 24;
/// `EV_KEY` and `KEY_POWER` of `linux/input-event-codes.h`.
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// An input device that may be the power button.
pub struct Button {
    file: File,
}

impl Button {
    /// Every input device there is.
    pub fn all() -> Vec<Button> {
        let Ok(devices) = fs::read_dir("/dev/input") else { return Vec::new() };
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        devices
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
            .filter_map(|entry| {
                OpenOptions::new().read(true).custom_flags(nonblocking).open(entry.path()).ok()
            })
            .map(|file| Button { file })
            .collect()
    }

    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Whether it was pressed since the last call.
    pub fn was_pressed(&mut self) -> bool {
        let mut buffer = [0; EVENT_LEN * 16];
        let mut pressed = false;
        while let Ok(len @ 1..) = self.file.read(&mut buffer) {
            pressed |= buffer[..len].chunks_exact(EVENT_LEN).any(is_press);
        }
        pressed
    }
}

fn is_press(event: &[u8]) -> bool {
    let word = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    (word(16), word(18), word(20)) == (EV_KEY, KEY_POWER, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_power_key_going_down_is_a_press() {
        let event = |kind: u16, code: u16, value: u16| {
            let mut bytes = [0x55; EVENT_LEN];
            for (at, word) in [(16, kind), (18, code), (20, value), (22, 0)] {
                bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
            }
            is_press(&bytes)
        };
        assert!(event(EV_KEY, KEY_POWER, 1));
        assert!(!event(EV_KEY, KEY_POWER, 0), "let go");
        assert!(!event(EV_KEY, 30, 1), "another key");
        assert!(!event(0, 0, 0), "the end of a report");
    }
}

//! How the host hands over a configuration by the port `vipr.config`.
//!
//! The host sends a line `vipr-config LENGTH` and then that many bytes of text. One line of JSON
//! comes back, the same that the control socket answers to `reload`: `applied` with what changed,
//! `unchanged`, or `refused` with the diagnostics.

use crate::config::TEXT_BYTES_MAX;

const KEYWORD: &str = "vipr-config ";
/// `vipr-config ` and a number.
const HEADER_BYTES_MAX: usize = 32;

/// A configuration on its way here.
#[derive(Debug, Default)]
pub struct Push {
    received: Vec<u8>,
}

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    Text(String),
    /// It cannot be taken for a configuration: a line for a person. What follows is taken afresh.
    Bad(String),
}

impl Push {
    /// Takes what came; gives what is now whole.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Pushed> {
        self.received.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(pushed) = self.next() {
            whole.push(pushed);
        }
        whole
    }

    /// Forgets what came: whoever sent it has gone.
    pub fn reset(&mut self) {
        self.received = Vec::new();
    }

    fn next(&mut self) -> Option<Pushed> {
        if self.received.is_empty() {
            return None;
        }
        let end = self.received.iter().take(HEADER_BYTES_MAX).position(|byte| *byte == b'\n');
        let Some(end) = end else {
            return (self.received.len() >= HEADER_BYTES_MAX).then(|| self.bad());
        };
        let len = str::from_utf8(&self.received[..end])
            .ok()
            .and_then(|line| line.strip_prefix(KEYWORD)?.trim().parse::<usize>().ok())
            .filter(|len| *len <= TEXT_BYTES_MAX);
        let Some(len) = len else { return Some(self.bad()) };
        let start = end + 1;
        if self.received.len() < start + len {
            return None;
        }
        let rest = self.received.split_off(start + len);
        let text = std::mem::replace(&mut self.received, rest).split_off(start);
        Some(match String::from_utf8(text) {
            Ok(text) => Pushed::Text(text),
            Err(_) => Pushed::Bad("the configuration is not UTF-8 text".to_owned()),
        })
    }

    fn bad(&mut self) -> Pushed {
        self.reset();
        Pushed::Bad(format!(
            "expected a line `{KEYWORD}LENGTH` and then as many bytes, {TEXT_BYTES_MAX} at most"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Pushed {
        Pushed::Text(text.to_owned())
    }

    #[test]
    fn texts_are_whole_however_they_come_in_pieces() {
        let sent = b"vipr-config 5\nhellovipr-config 0\nvipr-config 3\na\nb";
        for piece in 1..sent.len() {
            let mut push = Push::default();
            let taken: Vec<_> = sent.chunks(piece).flat_map(|bytes| push.take(bytes)).collect();
            assert_eq!(taken, [text("hello"), text(""), text("a\nb")], "{piece} bytes at a time");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused_and_the_next_is_taken() {
        let rows: [&[u8]; 5] = [
            b"hello\n",
            b"vipr-config -1\n",
            b"vipr-config 16777217\n",
            b"no line feed at all within the length of a header",
            b"\xff\n",
        ];
        for sent in rows {
            let mut push = Push::default();
            assert!(matches!(push.take(sent).as_slice(), [Pushed::Bad(_)]), "{sent:?}");
            assert_eq!(push.take(b"vipr-config 2\nok"), [text("ok")]);
        }
        let mut push = Push::default();
        assert!(matches!(push.take(b"vipr-config 1\n\xff").as_slice(), [Pushed::Bad(_)]));
    }

    #[test]
    fn what_a_host_left_unfinished_is_forgotten() {
        let mut push = Push::default();
        assert_eq!(push.take(b"vipr-config 100\nhalf"), []);
        push.reset();
        assert_eq!(push.take(b"vipr-config 2\nok"), [text("ok")]);
    }
}

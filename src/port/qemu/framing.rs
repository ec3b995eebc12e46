//! Frames in a stream as QEMU's `stream` network has them: before each its length, four bytes in
//! network order (`net/stream.c` and `net_socket_rs_init` of QEMU's `net/net.c`).

use std::io::{self, ErrorKind, Read, Write};

/// The longest frame that QEMU sends: its buffer, `NET_BUFSIZE`, has 64 KiB and a page.
pub const FRAME_MAX: usize = 69_632;
/// What may wait for a machine that does not read, in bytes. What would be more is lost.
pub const WAITING_MAX: usize = 4 << 20;

const PREFIX_LEN: usize = 4;
/// Room for more than one frame, so that a read brings many of ordinary length.
const BUFFER_LEN: usize = 2 * (PREFIX_LEN + FRAME_MAX);
/// How much may have been sent of what waits before the rest moves to the front.
const SENT_MAX: usize = 256 << 10;

/// What arrived and was not taken yet.
pub struct Incoming {
    buffer: Box<[u8]>,
    /// Of the bytes that are there.
    start: usize,
    end: usize,
}

/// What a look for the next frame came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Where it is, for [`Incoming::frame`].
    Frame { at: usize, len: usize },
    /// It is not whole yet.
    Incomplete,
    /// A length that no frame has: nobody can tell where the next one begins.
    Nonsense(usize),
}

impl Incoming {
    pub fn new() -> Incoming {
        Incoming { buffer: vec![0; BUFFER_LEN].into(), start: 0, end: 0 }
    }

    /// Takes the next frame, if it is whole.
    #[inline]
    pub fn next(&mut self) -> Next {
        let here = &self.buffer[self.start..self.end];
        let Some(prefix) = here.first_chunk::<PREFIX_LEN>() else { return Next::Incomplete };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > FRAME_MAX {
            return Next::Nonsense(len);
        }
        if here.len() < PREFIX_LEN + len {
            return Next::Incomplete;
        }
        let at = self.start + PREFIX_LEN;
        self.start = at + len;
        Next::Frame { at, len }
    }

    /// The bytes of a frame that was taken, until the next [`Self::fill`].
    #[inline]
    pub fn frame(&self, at: usize, len: usize) -> &[u8] {
        &self.buffer[at..at + len]
    }

    /// Reads once. How many bytes came: none at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream, but for an interruption.
    pub fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        loop {
            match stream.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => {
                    self.end += *result.as_ref().unwrap_or(&0);
                    return result;
                }
            }
        }
    }
}

/// What is to be sent and was not taken yet.
#[derive(Default)]
pub struct Outgoing {
    buffer: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Whether the frame found room.
    #[inline]
    pub fn push(&mut self, frame: &[u8]) -> bool {
        let Ok(len) = u32::try_from(frame.len()) else { return false };
        if self.buffer.len() - self.sent + PREFIX_LEN + frame.len() > WAITING_MAX {
            return false;
        }
        self.buffer.extend_from_slice(&len.to_be_bytes());
        self.buffer.extend_from_slice(frame);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Writes what the stream takes now.
    ///
    /// # Errors
    /// Those that end the stream.
    pub fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.sent < self.buffer.len() {
            match stream.write(&self.buffer[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.sent > SENT_MAX {
                        self.buffer.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that takes so many bytes at a time, and then no more for now.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let len = bytes.len().min(self.room);
            self.room -= len;
            self.taken.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let frames: [Vec<u8>; 4] =
            [vec![1; 60], Vec::new(), vec![2; FRAME_MAX], (0..=255).collect()];
        let mut outgoing = Outgoing::default();
        for piece in [1, 3, 59, 1500, 100_000] {
            let mut narrow = Narrow { taken: Vec::new(), room: 0 };
            assert!(frames.iter().all(|frame| outgoing.push(frame)));
            while !outgoing.is_empty() {
                narrow.room = piece;
                outgoing.flush(&mut narrow).unwrap();
            }
            let (mut incoming, mut received) = (Incoming::new(), Vec::new());
            for mut bytes in narrow.taken.chunks(piece) {
                while incoming.fill(&mut bytes).unwrap() > 0 {
                    while let Next::Frame { at, len } = incoming.next() {
                        received.push(incoming.frame(at, len).to_vec());
                    }
                }
            }
            assert!(received == frames, "{piece} bytes at a time");
            assert_eq!(incoming.next(), Next::Incomplete);
        }
    }

    #[test]
    fn a_length_that_no_frame_has_is_told() {
        let mut incoming = Incoming::new();
        let len = FRAME_MAX + 1;
        incoming.fill(&mut &(len as u32).to_be_bytes()[..]).unwrap();
        assert_eq!(incoming.next(), Next::Nonsense(len));
    }

    #[test]
    fn what_waits_is_bounded_and_there_is_room_again_when_some_has_gone() {
        let mut outgoing = Outgoing::default();
        let frame = [7; 1514];
        let mut count = 0;
        while outgoing.push(&frame) {
            count += 1;
        }
        assert_eq!(count, WAITING_MAX / (PREFIX_LEN + frame.len()));
        let mut narrow = Narrow { taken: Vec::new(), room: WAITING_MAX / 2 };
        outgoing.flush(&mut narrow).unwrap();
        assert!(outgoing.push(&frame));
        assert!(outgoing.buffer.len() <= WAITING_MAX, "it does not grow by what was sent");
        narrow.room = usize::MAX;
        outgoing.flush(&mut narrow).unwrap();
        assert_eq!(narrow.taken.len(), (count + 1) * (PREFIX_LEN + frame.len()));
        assert!(outgoing.is_empty());
    }
}

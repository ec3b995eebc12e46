//! The beginning of a TLS handshake (RFC 8446, 4.1; RFC 5246, 7.4.1): a ClientHello, and whether a
//! TLS server answers it. No key is agreed on and no certificate looked at: this tells whether the
//! service speaks TLS at the VIP, which a mere handshake of TCP does not.

use super::Fault;
use super::http::Verdict;

/// Content types of records.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Type of handshake messages.
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const RECORD_HEADER_LEN: usize = 5;
/// Alert: unrecognized name (RFC 6066, 3).
const UNRECOGNIZED_NAME: u8 = 112;
/// The base point of X25519 as a key share: a valid one, whose secret (1) everybody knows. No
/// secret is ever sent under it.
const SHARED_KEY: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 9;
    key
};

/// A ClientHello that servers of TLS 1.2 and 1.3 answer, for a server of this name.
pub(super) fn client_hello(name: Option<&str>, seed: u64) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let mut list = vec![0];
        prefixed(&mut list, |list| list.extend_from_slice(name.as_bytes()));
        extension(&mut extensions, 0, |body| prefixed(body, |body| body.extend(list)));
    }
    // Supported groups: x25519, secp256r1, secp384r1.
    extension(&mut extensions, 10, |body| body.extend([0, 6, 0, 29, 0, 23, 0, 24]));
    // Points uncompressed.
    extension(&mut extensions, 11, |body| body.extend([1, 0]));
    // Signatures: ECDSA, RSA-PSS and RSA with SHA-256, Ed25519, RSA-PSS and RSA with SHA-384.
    extension(&mut extensions, 13, |body| {
        body.extend([0, 12, 4, 3, 8, 4, 4, 1, 8, 7, 8, 5, 5, 1]);
    });
    // Versions: 1.3, 1.2.
    extension(&mut extensions, 43, |body| body.extend([4, 3, 4, 3, 3]));
    extension(&mut extensions, 51, |body| {
        prefixed(body, |body| {
            body.extend([0, 29]);
            prefixed(body, |body| body.extend(SHARED_KEY));
        });
    });

    let mut hello = vec![3, 3];
    // Random enough for a server that keeps count of them.
    let mut state = seed | 1;
    for _ in 0..4 {
        state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        hello.extend(state.to_be_bytes());
    }
    hello.push(0);
    // TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, and for 1.2
    // ECDHE with ECDSA and RSA, AES-128 and AES-256 in GCM, and RSA alone.
    prefixed(&mut hello, |hello| {
        hello.extend([19, 1, 19, 2, 19, 3, 192, 43, 192, 47, 192, 44, 192, 48, 0, 156, 0, 157]);
    });
    hello.extend([1, 0]);
    prefixed(&mut hello, |hello| hello.extend(extensions));

    let mut record = vec![HANDSHAKE, 3, 1];
    prefixed(&mut record, |record| {
        record.extend([CLIENT_HELLO, 0]);
        prefixed(record, |record| record.extend(hello));
    });
    record
}

fn extension(extensions: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    extensions.extend(kind.to_be_bytes());
    prefixed(extensions, body);
}

/// Appends something with its length, in two bytes, before it. All of it is short.
fn prefixed(output: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = output.len();
    output.extend([0, 0]);
    write(output);
    let len = (output.len() - start - 2) as u16;
    output[start..start + 2].copy_from_slice(&len.to_be_bytes());
}

/// Reads the first record of the answer as far as it takes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    record: Vec<u8>,
}

impl Reader {
    pub fn has_begun(&self) -> bool {
        !self.record.is_empty()
    }

    pub fn feed(&mut self, data: &[u8]) -> Verdict {
        let room = (RECORD_HEADER_LEN + 2).saturating_sub(self.record.len());
        self.record.extend_from_slice(&data[..data.len().min(room)]);
        match self.record.as_slice() {
            [HANDSHAKE, 3, _, _, _, SERVER_HELLO, ..] => Some(Ok(())),
            [HANDSHAKE, 3, _, _, _] | [HANDSHAKE, 3] | [HANDSHAKE] => None,
            [ALERT, 3, _, _, _, _, UNRECOGNIZED_NAME] => {
                Some(Err(Fault::Other("TLS alert: it does not know the server_name".to_owned())))
            }
            [ALERT, 3, _, _, _, _, alert] => Some(Err(Fault::Other(format!("TLS alert {alert}")))),
            [HANDSHAKE | ALERT, 3, ..] | [ALERT] if self.record.len() < RECORD_HEADER_LEN + 2 => {
                None
            }
            _ => Some(Err(Fault::Garbled("TLS"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_within_a_client_hello_fit() {
        for name in [None, Some("www.example.org")] {
            let hello = client_hello(name, 7);
            let len = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
            assert_eq!(len(3), hello.len() - 5, "the record");
            assert_eq!((hello[5], hello[6]), (CLIENT_HELLO, 0));
            assert_eq!(len(7), hello.len() - 9, "the message");
            // Version, random, an empty session, then the suites.
            let suites = 9 + 2 + 32 + 1;
            let extensions = suites + 2 + len(suites) + 2;
            assert_eq!(len(extensions), hello.len() - extensions - 2, "the extensions");
            let named = hello.windows(15).any(|window| window == b"www.example.org");
            assert_eq!(named, name.is_some());
        }
    }

    #[test]
    fn an_answer_is_judged_by_its_first_record_however_it_is_cut() {
        let alert = |code| Err(Fault::Other(format!("TLS alert {code}")));
        let unknown = Err(Fault::Other("TLS alert: it does not know the server_name".to_owned()));
        type Row = (&'static [u8], Option<Result<(), Fault>>);
        let rows: [Row; 6] = [
            (&[22, 3, 3, 0, 80, 2, 0, 0, 76], Some(Ok(()))),
            (&[21, 3, 3, 0, 2, 2, 40], Some(alert(40))),
            (&[21, 3, 3, 0, 2, 2, 112], Some(unknown)),
            (b"HTTP/1.1 400 Bad", Some(Err(Fault::Garbled("TLS")))),
            (&[22, 3, 3, 0, 80, 11, 0, 0], Some(Err(Fault::Garbled("TLS")))),
            (&[22, 3, 3], None),
        ];
        for (answer, expected) in rows {
            for piece in [1, 2, 100] {
                let mut reader = Reader::default();
                let verdict = answer.chunks(piece).find_map(|data| reader.feed(data));
                assert_eq!(verdict, expected, "{answer:?} by {piece}");
            }
        }
    }
}

//! A DNS question and the head of its answer (RFC 1035, 4.1).

use super::Fault;
use crate::config::check::DnsCheck;

const HEADER_LEN: usize = 12;
/// QR: a response.
const RESPONSE: u8 = 0x80;
/// RD: recursion desired, as a client's resolver asks.
const RECURSION_DESIRED: u8 = 0x01;
const RCODE_MASK: u8 = 0x0f;

/// The query.
pub(super) fn query(check: &DnsCheck, id: u16) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEADER_LEN + check.name.len() + 6);
    query.extend_from_slice(&id.to_be_bytes());
    query.extend_from_slice(&[RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in check.name.split('.').filter(|label| !label.is_empty()) {
        // Validation lets no longer label through than 63 bytes.
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&check.record.number().to_be_bytes());
    // Class IN.
    query.extend_from_slice(&[0, 1]);
    query
}

/// Whether an answer will do.
pub(super) fn judge(check: &DnsCheck, id: u16, answer: &[u8]) -> Result<(), Fault> {
    let Some(header) = answer.first_chunk::<HEADER_LEN>() else {
        return Err(Fault::Garbled("DNS"));
    };
    if header[..2] != id.to_be_bytes() || header[2] & RESPONSE == 0 {
        return Err(Fault::Garbled("that to the DNS query"));
    }
    let rcode = header[3] & RCODE_MASK;
    if rcode == check.rcode { Ok(()) } else { Err(Fault::Rcode(rcode)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::DnsRecord;

    fn check(rcode: u8) -> DnsCheck {
        DnsCheck { name: "www.example.org".into(), record: DnsRecord::Aaaa, rcode }
    }

    #[test]
    fn a_query_is_what_a_resolver_would_send() {
        let expected = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
                         \x03www\x07example\x03org\x00\x00\x1c\x00\x01";
        assert_eq!(query(&check(0), 0x1234), expected);
        let root = DnsCheck { name: "".into(), record: DnsRecord::Ns, rcode: 0 };
        assert_eq!(query(&root, 1)[HEADER_LEN..], [0, 0, 2, 0, 1]);
    }

    #[test]
    fn an_answer_is_judged_by_its_id_and_its_response_code() {
        let answer = |id: u16, flags: u8, rcode: u8| {
            let mut answer = query(&check(0), id);
            (answer[2], answer[3]) = (flags, 0x80 | rcode);
            answer
        };
        for (expected, answer, result) in [
            (0, answer(7, 0x81, 0), Ok(())),
            (0, answer(7, 0x81, 3), Err(Fault::Rcode(3))),
            (3, answer(7, 0x81, 3), Ok(())),
            (3, answer(7, 0x81, 0), Err(Fault::Rcode(0))),
            (0, answer(8, 0x81, 0), Err(Fault::Garbled("that to the DNS query"))),
            (0, answer(7, 0x01, 0), Err(Fault::Garbled("that to the DNS query"))),
            (0, vec![0, 7, 0x81], Err(Fault::Garbled("DNS"))),
        ] {
            assert_eq!(judge(&check(expected), 7, &answer), result, "{answer:?}");
        }
    }
}

//! An HTTP/1.1 request, and the answer to it, byte by byte as it comes (RFC 9112). Knows no
//! connection: what comes over TLS is read just so.

use super::Fault;
use crate::config::check::HttpCheck;

/// Bytes of a head: as much as servers send at most.
const HEAD_LEN_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 128;
/// Bytes of a body that are looked through.
const BODY_LEN_MAX: usize = 256 << 10;

/// The request.
pub(super) fn request(check: &HttpCheck) -> Vec<u8> {
    let HttpCheck { method, path, host, .. } = check;
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: vipr/{}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}

/// Reads an answer until it is clear whether it will do.
#[derive(Debug)]
pub(super) struct Reader {
    check: HttpCheck,
    /// What came of the head so far; empty once it was complete.
    head: Vec<u8>,
    body: Option<Body>,
}

/// The verdict on an answer; `None` while it is not clear.
pub(super) type Verdict = Option<Result<(), Fault>>;

impl Reader {
    pub fn new(check: HttpCheck) -> Reader {
        Reader { check, head: Vec::new(), body: None }
    }

    /// Whether anything has come.
    pub fn has_begun(&self) -> bool {
        !self.head.is_empty() || self.body.is_some()
    }

    /// Takes in what came next.
    pub fn feed(&mut self, data: &[u8]) -> Verdict {
        if let Some(body) = &mut self.body {
            return body.feed(data);
        }
        self.head.extend_from_slice(data);
        loop {
            let (status, len, body) = match parse_head(&self.head) {
                Ok(Some(parsed)) => parsed,
                Ok(None) if self.head.len() <= HEAD_LEN_MAX => return None,
                Ok(None) | Err(()) => return Some(Err(Fault::Garbled("HTTP"))),
            };
            if (100..200).contains(&status) && status != 101 {
                // An interim response; the final one follows (RFC 9110, 15.2).
                self.head.drain(..len);
                continue;
            }
            if !self.check.status.iter().any(|range| range.contains(status)) {
                return Some(Err(Fault::Status(status)));
            }
            let Some(text) = &self.check.body else { return Some(Ok(())) };
            let mut body = Body { text: text.as_bytes().to_vec(), ..body };
            let rest = self.head.split_off(len);
            self.head.clear();
            let verdict = body.feed(&rest);
            self.body = Some(body);
            return verdict;
        }
    }

    /// The connection has ended.
    pub fn end(&mut self) -> Result<(), Fault> {
        match &self.body {
            Some(_) => Err(Fault::TextMissing),
            None => Err(Fault::Closed),
        }
    }
}

/// The status, the length and the kind of body of a head, once it is complete.
fn parse_head(head: &[u8]) -> Result<Option<(u16, usize, Body)>, ()> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(len) = response.parse(head).map_err(|_| ())? else {
        return Ok(None);
    };
    let status = response.code.ok_or(())?;
    let mut body = Body::default();
    for field in response.headers.iter() {
        let value = core::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            body.chunked = value.to_ascii_lowercase().ends_with("chunked").then(Chunks::default);
        } else if field.name.eq_ignore_ascii_case("content-length") {
            body.left = value.parse().ok();
        }
    }
    if body.chunked.is_some() {
        body.left = None;
    }
    Ok(Some((status, len, body)))
}

/// A body that a text is looked for in.
#[derive(Debug, Default)]
struct Body {
    text: Vec<u8>,
    /// The end of what came, in which the text may begin.
    tail: Vec<u8>,
    seen: usize,
    /// Bytes that are still to come, if that is known.
    left: Option<u64>,
    chunked: Option<Chunks>,
}

impl Body {
    fn feed(&mut self, data: &[u8]) -> Verdict {
        let ended = match &mut self.chunked {
            Some(chunks) => match chunks.feed(data, &mut self.tail) {
                Ok(ended) => ended,
                Err(()) => return Some(Err(Fault::Garbled("HTTP"))),
            },
            None => {
                let left = self.left.map_or(usize::MAX, |left| left.min(1 << 30) as usize);
                let data = &data[..data.len().min(left)];
                self.tail.extend_from_slice(data);
                self.left = self.left.map(|left| left - data.len() as u64);
                self.left == Some(0)
            }
        };
        self.seen += data.len();
        if self.text.is_empty() || self.tail.windows(self.text.len()).any(|at| at == self.text) {
            return Some(Ok(()));
        }
        if ended || self.seen > BODY_LEN_MAX {
            return Some(Err(Fault::TextMissing));
        }
        let kept = self.tail.len().min(self.text.len() - 1);
        self.tail.drain(..self.tail.len() - kept);
        None
    }
}

/// The chunked transfer coding (RFC 9112, 7.1).
#[derive(Debug, Default)]
struct Chunks {
    /// What came of the line with the length.
    line: Vec<u8>,
    /// Bytes of the chunk that are still to come, its line end included.
    left: usize,
}

impl Chunks {
    /// Appends the data of chunks; whether the last one has come.
    fn feed(&mut self, mut data: &[u8], output: &mut Vec<u8>) -> Result<bool, ()> {
        while let Some(&first) = data.first() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                // The last two are the line end.
                let content = taken.min(self.left.saturating_sub(2));
                output.extend_from_slice(&data[..content]);
                self.left -= taken;
                data = &data[taken..];
                continue;
            }
            data = &data[1..];
            if first != b'\n' {
                self.line.push(first);
                if self.line.len() > 256 {
                    return Err(());
                }
                continue;
            }
            let line = core::str::from_utf8(&self.line).map_err(|_| ())?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let len = usize::from_str_radix(digits, 16).map_err(|_| ())?;
            self.line.clear();
            if len == 0 {
                return Ok(true);
            }
            self.left = len.min(1 << 30) + 2;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::StatusRange;

    fn check(body: Option<&str>) -> HttpCheck {
        HttpCheck {
            method: "GET".into(),
            path: "/health".into(),
            host: "192.0.2.10".into(),
            status: vec![StatusRange { first: 200, last: 299 }],
            body: body.map(Into::into),
        }
    }

    /// The verdict on an answer that comes in pieces of this length and then ends.
    fn judge(body: Option<&str>, answer: &[u8], piece: usize) -> Result<(), Fault> {
        let mut reader = Reader::new(check(body));
        for data in answer.chunks(piece) {
            if let Some(verdict) = reader.feed(data) {
                return verdict;
            }
        }
        reader.end()
    }

    #[test]
    fn an_answer_is_judged_by_status_and_text_however_it_is_cut() {
        let long = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; BODY_LEN_MAX + 99]].concat();
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; HEAD_LEN_MAX + 99]].concat();
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                        6;a=b\r\nall is\r\n5\r\n well\r\n0\r\n\r\n";
        type Row<'r> = (Option<&'r str>, &'r [u8], Result<(), Fault>);
        let rows: &[Row<'_>] = &[
            (None, b"HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            (None, b"HTTP/1.0 204 \r\nA: b\r\n\r\nrest", Ok(())),
            (None, b"HTTP/1.1 500 Oh\r\n\r\n", Err(Fault::Status(500))),
            (None, b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Err(Fault::Status(302))),
            (None, b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())),
            (None, b"SSH-2.0-OpenSSH_9.2\r\n", Err(Fault::Garbled("HTTP"))),
            (None, b"HTTP/1.1 200 OK\r\n", Err(Fault::Closed)),
            (None, b"", Err(Fault::Closed)),
            (None, &endless, Err(Fault::Garbled("HTTP"))),
            (Some("well"), b"HTTP/1.1 200 OK\r\n\r\nall is well", Ok(())),
            (Some("well"), b"HTTP/1.1 200 OK\r\n\r\nall is bad", Err(Fault::TextMissing)),
            (
                Some("well"),
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall is well",
                Err(Fault::TextMissing),
            ),
            (Some("is well"), chunked, Ok(())),
            (Some("ill"), chunked, Err(Fault::TextMissing)),
            (Some("well"), b"HTTP/1.1 503 No\r\n\r\nwell", Err(Fault::Status(503))),
            (
                Some("well"),
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                Err(Fault::Garbled("HTTP")),
            ),
            (Some("well"), &long, Err(Fault::TextMissing)),
        ];
        for (body, answer, expected) in rows {
            for piece in [1, 2, 7, 100_000] {
                let shown = String::from_utf8_lossy(&answer[..answer.len().min(80)]);
                assert_eq!(judge(*body, answer, piece), *expected, "by {piece}: {shown}");
            }
        }
    }

    #[test]
    fn a_request_has_what_virtual_hosts_need() {
        let text = String::from_utf8(request(&check(None))).unwrap();
        assert!(text.starts_with("GET /health HTTP/1.1\r\nHost: 192.0.2.10\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }
}

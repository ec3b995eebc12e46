//! Standard output, and how numbers are written for people.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::net::IpAddr;

use super::Failure;

/// Lets `write` write results to standard output. A reader that has seen enough is no failure.
pub(super) fn print(
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut output = BufWriter::new(io::stdout().lock());
    match write(&mut output).and_then(|()| output.flush().map_err(Failure::from)) {
        Err(Failure::Closed) => Ok(()),
        result => result,
    }
}

/// A line (or more) on standard error. Whoever closed that does not want to read it.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

impl From<io::Error> for Failure {
    /// Of a failed write to standard output.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::Running(format!("standard output: {error}")),
        }
    }
}

/// `192.0.2.10:80`, `[2001:db8::10]:80`.
pub(super) fn endpoint(address: IpAddr, port: impl fmt::Display) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

/// A count in eight columns at most, as ipvsadm shortens it: `99999999`, `100000K`, `100000M`.
pub(super) fn short(count: u64) -> String {
    match count {
        0..100_000_000 => count.to_string(),
        100_000_000..100_000_000_000 => format!("{}K", count / 1_000),
        100_000_000_000..100_000_000_000_000 => format!("{}M", count / 1_000_000),
        100_000_000_000_000..100_000_000_000_000_000 => format!("{}G", count / 1_000_000_000),
        _ => format!("{}T", count / 1_000_000_000_000),
    }
}

/// `42 s`, `5 min 3 s`, `2 h 5 min`, `9 d 4 h`.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_never_take_more_than_eight_columns() {
        for (count, expected) in [
            (0, "0"),
            (99_999_999, "99999999"),
            (100_000_000, "100000K"),
            (99_999_999_999, "99999999K"),
            (100_000_000_000, "100000M"),
            (123_456_789_012_345, "123456G"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(short(count), expected);
        }
    }

    #[test]
    fn ages_show_their_two_largest_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_599, "59 min 59 s"),
            (3_600, "1 h 0 min"),
            (86_399, "23 h 59 min"),
            (97_200, "1 d 3 h"),
        ] {
            assert_eq!(age(seconds), expected);
        }
    }
}

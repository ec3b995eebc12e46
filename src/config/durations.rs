//! Durations as people write them: `"5m"`, `"1h30m"`, `"250ms"`, `"900"`.

use core::time::Duration;

/// The units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration: digits alone are seconds; otherwise numbers with the units `d`, `h`, `m`,
/// `s`, `ms`, each at most once, the longest first. `None` for anything else, and for what does
/// not fit into 2⁶⁴ milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Some(seconds) = whole_number(text) {
        return seconds.checked_mul(1000).map(Duration::from_millis);
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total_ms = 0u64;
    while !rest.is_empty() {
        let digits_end = rest.find(|char: char| !char.is_ascii_digit())?;
        let number = whole_number(&rest[..digits_end])?;
        rest = &rest[digits_end..];
        let unit_end = rest.find(|char: char| char.is_ascii_digit()).unwrap_or(rest.len());
        // Searching on where the last unit was found keeps the order and refuses repetition.
        let (_, unit_ms) = units.find(|(name, _)| *name == &rest[..unit_end])?;
        total_ms = total_ms.checked_add(number.checked_mul(*unit_ms)?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

/// The shortest form [`parse_duration`] reads back: `5m`, `1h30m`, `250ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut rest_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest_ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, unit_ms) in UNITS {
        if rest_ms >= unit_ms {
            text.push_str(&format!("{}{name}", rest_ms / unit_ms));
            rest_ms %= unit_ms;
        }
    }
    text
}

/// Digits only: `str::parse` would let a sign pass.
fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds, shortest) in [
            ("5m", 300_000, "5m"),
            ("15", 15_000, "15s"),
            ("900", 900_000, "15m"),
            ("0", 0, "0s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("250ms", 250, "250ms"),
            ("1d2h3m4s5ms", 93_784_005, "1d2h3m4s5ms"),
            ("60s", 60_000, "1m"),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Some(duration), "{text}");
            assert_eq!(format_duration(duration), shortest, "{text}");
            assert_eq!(parse_duration(shortest), Some(duration), "{shortest}");
        }
    }

    #[test]
    fn anything_else_is_no_duration() {
        for text in [
            "",
            "m",
            "5 m",
            " 5m",
            "-5",
            "+5",
            "5.5s",
            "1e3",
            "5min",
            "5M",
            "30m1h",
            "5m5m",
            "5ms1s",
            "m5",
            "5m3",
            "1h-30m",
            "٥s",
            "18446744073709551616",
            "18446744073709551615",
            "999999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }
}

//! Reading `ports`: `80`, `[80, 443]`, `"8000-8099"`, `"any"`, and lists of the first three.

use toml::de::DeValue;

use super::diagnostics::{Mistake, Mistakes, Read, Span, quoted};
use super::section::{At, Value};
use super::snapshot::{PortRange, Ports};

/// Ports and ranges a service may list.
pub const PORT_RANGES_MAX: usize = 256;

const EXPECTED: &str = "expected 80, [80, 443], \"8000-8099\" or \"any\"";

/// Reads the L4 ports of a service.
pub(super) fn ports(value: Value<'_>, mistakes: &mut Mistakes) -> Read<At<Ports>> {
    let span = value.span;
    let ranges = match value.value {
        DeValue::String(text) => return text_ports(value, text, mistakes),
        DeValue::Integer(_) => vec![read_number(value).map_err(|m| mistakes.report(m))?],
        DeValue::Array(_) => return list(value, mistakes),
        _ => return Err(mistakes.report(value.wrong_kind(EXPECTED))),
    };
    let ranges = ranges.into_iter().map(|range| At { value: range, span }).collect();
    join(value, ranges, mistakes)
}

/// The same out of a part of a text: `80`, `80,443`, `8000-8099`, `any`.
pub(super) fn text_ports(value: Value<'_>, text: &str, mistakes: &mut Mistakes) -> Read<At<Ports>> {
    let span = value.span;
    if text == "any" {
        return Ok(At { value: Ports::Any, span });
    }
    let ranges = read_text(value, text).map_err(|mistake| mistakes.report(mistake))?;
    let ranges = ranges.into_iter().map(|range| At { value: range, span }).collect();
    join(value, ranges, mistakes)
}

fn list(value: Value<'_>, mistakes: &mut Mistakes) -> Read<At<Ports>> {
    let elements = value.value.as_array().into_iter().flat_map(|array| array.iter());
    let mut ranges = Vec::new();
    let mut complete = Ok(());
    for element in elements {
        let span = element.span().into();
        let element = Value { key: value.key, value: element.get_ref(), span };
        let read = match element.value {
            DeValue::String(text) if text == "any" => Err(element
                .mistake("has \"any\" among other ports")
                .expected("expected a port or a range")
                .help("write ports = \"any\" for all ports")),
            DeValue::String(text) => read_text(element, text),
            DeValue::Integer(_) => read_number(element).map(|range| vec![range]),
            _ => Err(element.wrong_kind("expected a port or a range, as in 80 or \"8000-8099\"")),
        };
        match read {
            Ok(read) => ranges.extend(read.into_iter().map(|value| At { value, span })),
            Err(mistake) => complete = Err(mistakes.report(mistake)),
        }
    }
    if ranges.is_empty() {
        // Said already of each element there is.
        complete?;
    }
    let joined = join(value, ranges, mistakes);
    complete.and(joined)
}

/// Sorts the ranges and reports those that overlap.
fn join(
    value: Value<'_>,
    mut ranges: Vec<At<PortRange>>,
    mistakes: &mut Mistakes,
) -> Read<At<Ports>> {
    if ranges.is_empty() {
        let mistake = value.mistake("has no port").expected(EXPECTED);
        return Err(mistakes.report(mistake.help("write \"any\" for all ports")));
    }
    if ranges.len() > PORT_RANGES_MAX {
        let what = format!("lists {} ports and ranges", ranges.len());
        let expected = format!("expected at most {PORT_RANGES_MAX}");
        let mistake = value.mistake(what).expected(expected);
        return Err(mistakes.report(mistake.help("join neighbours to ranges, as in \"8000-8099\"")));
    }
    ranges.sort_by_key(|range| (range.value, range.span.start));
    let mut complete = Ok(());
    for pair in ranges.windows(2) {
        if pair[1].value.first <= pair[0].value.last {
            let (earlier, later) = in_order(pair[0].span, pair[1].span);
            let mistake =
                Mistake::new(later, format!("`ports` has port {} twice", pair[1].value.first))
                    .expected("expected each port once")
                    .help("remove one of the two");
            let mistake = if earlier == later {
                mistake
            } else {
                mistake.related(earlier, "first listed here")
            };
            complete = Err(mistakes.report(mistake));
        }
    }
    complete?;
    let ports = Ports::Some(ranges.into_iter().map(|range| range.value).collect());
    Ok(At { value: ports, span: value.span })
}

fn in_order(a: Span, b: Span) -> (Span, Span) {
    if a.start <= b.start { (a, b) } else { (b, a) }
}

fn read_number(value: Value<'_>) -> Result<PortRange, Mistake> {
    if value.value.as_integer().is_some_and(|integer| integer.as_str() == "0") {
        return Err(port_zero(value));
    }
    let number = value.number(1..=u32::from(u16::MAX))?;
    let port = u16::try_from(number).map_err(|_| value.wrong_kind(EXPECTED))?;
    Ok(PortRange { first: port, last: port })
}

/// Ports and ranges, separated by commas.
fn read_text(value: Value<'_>, text: &str) -> Result<Vec<PortRange>, Mistake> {
    let fault = || {
        value
            .mistake(format_args!("is not a port or a range: {}", quoted(text)))
            .expected(EXPECTED)
            .help("ports are numbers from 1 to 65535")
    };
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok()).flatten().ok_or_else(fault)
    };
    let mut ranges = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if first == 0 {
            return Err(port_zero(value));
        }
        if first > last {
            return Err(value
                .mistake(format_args!("has a range that ends before it starts: {}", quoted(part)))
                .expected("expected the lower port first")
                .help(format!("write \"{last}-{first}\"")));
        }
        ranges.push(PortRange { first, last });
    }
    Ok(ranges)
}

fn port_zero(value: Value<'_>) -> Mistake {
    value
        .mistake("has port 0")
        .expected("expected ports from 1 to 65535")
        .help("write \"any\" for all ports")
}

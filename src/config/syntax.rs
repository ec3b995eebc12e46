//! What the TOML parser has to say, in the words of our diagnostics.
//!
//! The parser recovers from most errors by itself. Not from a bracket that is never closed: it
//! takes the rest of the file for what stands in it, and has something to say about every line.
//! [`mend`] finds that bracket and makes comments of its lines, so that the rest can be read.

use core::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::diagnostics::{Mistake, Mistakes, quoted, ticked};

/// What separates what the parser says from what it expected.
const EXPECTED: &str = ", expected ";

/// Unclosed brackets that are mended in one file; each costs a parse.
const MENDED_MAX: usize = 16;

/// Reports brackets that are never closed. Gives the text back with comments in place of their
/// lines, every other byte where it was.
pub(super) fn mend(text: &str, mistakes: &mut Mistakes) -> String {
    let mut mended = text.to_owned();
    for _ in 0..MENDED_MAX {
        let (table, errors) = DeTable::parse_recoverable(&mended);
        let Some(value) = unclosed_value(&mended, table.get_ref(), &errors) else { break };
        let open = value.start;
        let bracket = if mended[open..].starts_with('{') { ('{', '}') } else { ('[', ']') };
        let line_start = mended[..open].rfind('\n').map_or(0, |at| at + 1);
        let line_end = mended[open..].find('\n').map_or(mended.len(), |at| open + at);
        let first_error = errors.iter().filter_map(Error::span).map(|span| span.start);
        let first_error = first_error.filter(|at| *at > open).min().unwrap_or(line_end);
        let noticed = mended[..first_error].rfind('\n').map_or(0, |at| at + 1);
        let closed_by = mended[..noticed].matches('\n').count() + 1;

        let message = format!("not TOML: `{}` is never closed", bracket.0);
        let mistake = Mistake::syntax(open..open + 1, message)
            .expected(format!("expected `{}` to follow", bracket.1));
        mistakes.report(if first_error > line_end && noticed < mended.len() {
            mistake.help(format!("close it before line {closed_by}"))
        } else {
            mistake.help("close it in the same line")
        });
        comment_out(&mut mended, line_start..noticed.max(line_end));
    }
    mended
}

/// Reports each syntax error of `text`.
pub(super) fn report(text: &str, errors: &[Error], mistakes: &mut Mistakes) {
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let found = text.get(span.clone()).unwrap_or_default();
        mistakes.report(match base(error) {
            "duplicate key" => Mistake::syntax(span, format!("{} is defined twice", ticked(found)))
                .expected("expected each key and each table once")
                .help("remove one; only tables in double brackets can be repeated"),
            what if is_about_scalar(what) => bare_word(text, span),
            what => {
                let mistake = Mistake::syntax(span, format!("not TOML: {what}"));
                match error.message().split_once(EXPECTED) {
                    Some((_, "nothing")) | None => mistake,
                    Some((_, expected)) => mistake.expected(format!("expected {expected}")),
                }
            }
        });
    }
}

/// Whether the parser says this of a value it takes for a number, a date, or a boolean.
fn is_about_scalar(what: &str) -> bool {
    what == "string values must be quoted"
        || ["boolean", "float", "date", "datetime", "time"]
            .iter()
            .any(|kind| what.strip_prefix("invalid ") == Some(kind))
}

/// What is meant as text far more often than as what the parser takes it for: `tcp`, `192.0.2.10`.
fn bare_word(text: &str, span: Range<usize>) -> Mistake {
    let ends = |char: char| matches!(char, ',' | '[' | ']' | '{' | '}' | '#' | '=' | '\n' | '\r');
    // The parser may point at a part of it only.
    let (before, after) = text.split_at(text.floor_char_boundary(span.start));
    let start = before.rfind(ends).map_or(0, |at| at + 1);
    let end = before.len() + after.find(ends).unwrap_or(after.len());
    let around = &text[start..end];
    let word = around.trim();
    let start = start + (around.len() - around.trim_start().len());
    if word.is_empty() {
        return Mistake::syntax(span, "not TOML: a key without a value")
            .expected("expected a value")
            .help("write one, or remove the key for its default");
    }
    let mistake =
        Mistake::syntax(start..start + word.len(), "not TOML: text without quotation marks");
    let lower = word.to_lowercase();
    if lower == "true" || lower == "false" {
        mistake.expected("expected a value").help(format!("write {lower}"))
    } else {
        mistake.expected("expected quotation marks").help(format!("write {}", quoted(word)))
    }
}

/// Where the array or inline table stands that is never closed, if one is.
fn unclosed_value(text: &str, table: &DeTable<'_>, errors: &[Error]) -> Option<Range<usize>> {
    let is_unclosed =
        |error: &&Error| matches!(base(error), "unclosed array" | "unclosed inline table");
    let end = errors.iter().filter(is_unclosed).filter_map(Error::span).next_back()?.start;
    let mut values: Vec<_> = table.values().collect();
    while let Some(value) = values.pop() {
        let span = value.span();
        let excerpt = text.get(span.clone()).unwrap_or_default();
        // The span of a table with a header, and of an array of those, is the header: it is closed
        // and ends where it ends. An inline table may seem to end at a bracket further down.
        let is_open = |opening, closing| {
            let reaches_end = span.start < end && end <= span.end;
            excerpt.starts_with(opening) && (reaches_end || !excerpt.ends_with(closing))
        };
        match value.get_ref() {
            DeValue::Array(_) if is_open('[', ']') => return Some(span),
            DeValue::Table(_) if is_open('{', '}') => return Some(span),
            DeValue::Array(array) => values.extend(array.iter()),
            DeValue::Table(table) => values.extend(table.values()),
            _ => {}
        }
    }
    None
}

/// The message without what was expected.
fn base(error: &Error) -> &str {
    error.message().split(EXPECTED).next().unwrap_or_default()
}

/// Puts a `#` at the start of each of these lines.
fn comment_out(text: &mut String, lines: Range<usize>) {
    let mut commented = String::with_capacity(lines.len());
    for line in text[lines.clone()].split_inclusive('\n') {
        match line.chars().next() {
            Some('\n' | '\r') | None => commented.push_str(line),
            Some(first) => {
                commented.push('#');
                commented.extend(core::iter::repeat_n(' ', first.len_utf8() - 1));
                commented.push_str(&line[first.len_utf8()..]);
            }
        }
    }
    text.replace_range(lines, &commented);
}

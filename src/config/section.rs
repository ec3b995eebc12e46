//! Reading one table: which keys it may have, and what it says about the others.

use core::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Mistake, Mistakes, Read, Reported, Span, excerpt, ticked};

/// Longer keys are not compared with the known ones.
const COMPARED_KEY_CHARS_MAX: usize = 32;

/// Longer lists of keys are not repeated in a diagnostic.
const KEYS_SHOWN_MAX: usize = 12;

/// A kind of table: its header and its keys.
#[derive(Debug)]
pub(super) struct Schema {
    /// As it is written in the file, for instance `[[service]]`.
    pub header: &'static str,
    pub keys: &'static [&'static str],
    /// The document itself: a header that is not understood leaves its keys here.
    pub is_root: bool,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

/// The readable elements of a list, and whether that is all of them.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    pub items: Vec<At<T>>,
    pub complete: Read<()>,
}

/// The value of a key, not looked at yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'d> {
    pub key: &'static str,
    pub value: &'d DeValue<'d>,
    pub span: Span,
}

/// A table of the document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'d> {
    pub table: &'d DeTable<'d>,
    /// The header, or an inline table as a whole.
    pub span: Span,
    schema: &'static Schema,
    /// What `NAME` in the schema's header stands for.
    name: Option<&'d str>,
}

impl<'d> Section<'d> {
    /// Takes a value as the table that `schema` describes; reports what is no table, and every
    /// key that does not belong.
    pub fn open(
        value: &'d Spanned<DeValue<'d>>,
        schema: &'static Schema,
        name: Option<&'d str>,
        mistakes: &mut Mistakes,
    ) -> Read<Section<'d>> {
        let span = value.span().into();
        match value.get_ref() {
            DeValue::Table(table) => Ok(Section::of(table, span, schema, name, mistakes)),
            other => {
                let header = schema.header_of(name);
                let message = format!("found {} where the table {header} belongs", kind(other));
                Err(mistakes.report(
                    Mistake::structural(span, message)
                        .expected("expected a table")
                        .help(format!("write the settings under the header {header}")),
                ))
            }
        }
    }

    /// Like [`Self::open`], of what is known to be a table.
    pub fn of(
        table: &'d DeTable<'d>,
        span: Span,
        schema: &'static Schema,
        name: Option<&'d str>,
        mistakes: &mut Mistakes,
    ) -> Section<'d> {
        let section = Section { table, span, schema, name };
        for key in table.keys() {
            if !schema.keys.contains(&key.get_ref().as_ref()) {
                mistakes.report(section.stranger(key.get_ref(), key.span().into()));
            }
        }
        section
    }

    /// The value of `key`, if there is one.
    pub fn value(&self, key: &'static str) -> Option<Value<'d>> {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in the schema");
        let value = self.table.get(key)?;
        Some(Value { key, value: value.get_ref(), span: value.span().into() })
    }

    /// Where a key stands; the section itself if it has no such key.
    pub fn key_span(&self, key: &str) -> Span {
        self.table.get_key_value(key).map_or(self.span, |(key, _)| key.span().into())
    }

    /// The value of a key that may be absent.
    pub fn optional<T>(
        &self,
        key: &'static str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(Value<'d>) -> Result<T, Mistake>,
    ) -> Read<Option<At<T>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match read(value) {
            Ok(read) => Ok(Some(At { value: read, span: value.span })),
            Err(mistake) => Err(mistakes.report(mistake)),
        }
    }

    /// The value of a key that has a default.
    pub fn defaulted<T>(
        &self,
        key: &'static str,
        default: T,
        mistakes: &mut Mistakes,
        read: impl FnOnce(Value<'d>) -> Result<T, Mistake>,
    ) -> Read<T> {
        Ok(self.optional(key, mistakes, read)?.map_or(default, |at| at.value))
    }

    /// The value of a key that must be there; `example` is a line that would do.
    pub fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        mistakes: &mut Mistakes,
        read: impl FnOnce(Value<'d>) -> Result<T, Mistake>,
    ) -> Read<At<T>> {
        match self.optional(key, mistakes, read)? {
            Some(at) => Ok(at),
            None => Err(self.missing(key, example, mistakes)),
        }
    }

    /// Reports that a key which must be there is not.
    pub fn missing(&self, key: &str, example: &str, mistakes: &mut Mistakes) -> Reported {
        mistakes.report(
            Mistake::structural(self.span, format!("{} without `{key}`", self.header()))
                .expected(format!("expected `{key}` in here"))
                .help(format!("add a line such as: {example}")),
        )
    }

    /// The elements of an array, each read by itself; empty if the key is absent.
    pub fn list<T>(
        &self,
        key: &'static str,
        length_max: usize,
        mistakes: &mut Mistakes,
        mut read: impl FnMut(Value<'d>) -> Result<T, Mistake>,
    ) -> List<T> {
        let mut list = List { items: Vec::new(), complete: Ok(()) };
        let Some(value) = self.value(key) else { return list };
        let DeValue::Array(array) = value.value else {
            let mistake = value
                .wrong_kind("expected an array")
                .help(format!("put it into brackets: {key} = [ … ], even where it is only one"));
            list.complete = Err(mistakes.report(mistake));
            return list;
        };
        if array.len() > length_max {
            let message = format!("`{key}` has {} elements", array.len());
            let mistake = Mistake::new(array[length_max].span(), message)
                .expected(format!("expected at most {length_max}"));
            list.complete = Err(mistakes.report(mistake));
        }
        for element in array.iter().take(length_max) {
            let span = element.span().into();
            match read(Value { key, value: element.get_ref(), span }) {
                Ok(value) => list.items.push(At { value, span }),
                Err(mistake) => list.complete = Err(mistakes.report(mistake)),
            }
        }
        list
    }

    /// The tables of an array of tables, in order; empty if the key is absent.
    pub fn tables(
        &self,
        key: &'static str,
        schema: &'static Schema,
        mistakes: &mut Mistakes,
    ) -> List<Section<'d>> {
        let mut list = List { items: Vec::new(), complete: Ok(()) };
        let Some(value) = self.value(key) else { return list };
        let DeValue::Array(array) = value.value else {
            let message = format!("`{key}` is {}", kind(value.value));
            list.complete = Err(mistakes.report(
                Mistake::structural(value.span, message)
                    .expected("expected an array of tables")
                    .help(format!(
                        "each of them has a header in double brackets: {}",
                        schema.header
                    )),
            ));
            return list;
        };
        for element in array.iter() {
            match Section::open(element, schema, None, mistakes) {
                Ok(section) => list.items.push(At { value: section, span: section.span }),
                Err(reported) => list.complete = Err(reported),
            }
        }
        list
    }
    /// The header as it stands in the file.
    fn header(&self) -> String {
        self.schema.header_of(self.name)
    }

    /// The mistake that a key is which does not belong here.
    fn stranger(&self, key: &str, span: Span) -> Mistake {
        let keys = self.schema.keys;
        let message = format!("unknown key {} in {}", ticked(key), self.header());
        let mistake = if self.schema.is_root {
            // The broken header above it may be another's.
            Mistake::structural(span, message)
        } else {
            Mistake::new(span, message)
        };
        let mistake = if keys.len() <= KEYS_SHOWN_MAX {
            mistake.expected(format!("expected one of: {}", keys.join(", ")))
        } else {
            mistake.expected(format!("expected a key of {}", self.header()))
        };
        if let Some(near) = nearest(key, keys) {
            return mistake.help(format!("did you mean `{near}`?"));
        }
        let homes = super::document::SCHEMAS.iter().filter(|schema| schema.keys.contains(&key));
        let homes: Vec<&str> = homes.map(|schema| schema.header).collect();
        if homes.is_empty() {
            mistake.help("remove it")
        } else {
            mistake.help(format!("`{key}` belongs in {}", homes.join(" or ")))
        }
    }
}

impl Schema {
    fn header_of(&self, name: Option<&str>) -> String {
        match name {
            Some(name) => self.header.replace("NAME", &excerpt(name)),
            None => self.header.to_owned(),
        }
    }
}

impl<'d> Value<'d> {
    /// A mistake about this value: its key, then `what`.
    pub fn mistake(&self, what: impl core::fmt::Display) -> Mistake {
        Mistake::new(self.span, format!("`{}` {what}", self.key))
    }

    /// The value has the wrong TOML type.
    pub fn wrong_kind(&self, expected: &str) -> Mistake {
        self.mistake(format_args!("is {}", kind(self.value))).expected(expected)
    }

    /// Its text, if it is a string; `expected` says what kind of string that should be.
    pub fn string(&self, expected: &str) -> Result<&'d str, Mistake> {
        self.value.as_str().ok_or_else(|| self.wrong_kind(expected))
    }

    /// A whole number in `range`.
    pub fn number(&self, range: RangeInclusive<u32>) -> Result<u32, Mistake> {
        let expected =
            || format!("expected a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            return Err(self.wrong_kind(&expected()));
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(self.mistake(format_args!("is out of range: {integer}")).expected(expected())),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Result<bool, Mistake> {
        self.value.as_bool().ok_or_else(|| {
            self.wrong_kind("expected true or false").help("booleans have no quotation marks")
        })
    }
}

/// A TOML type with its article.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The known word that `word` is most likely a misspelling of: at most a third of it differs.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word: Vec<char> = word.to_lowercase().chars().take(COMPARED_KEY_CHARS_MAX + 1).collect();
    if word.len() > COMPARED_KEY_CHARS_MAX {
        return None;
    }
    let distance = |candidate: &str| edit_distance(&word, &candidate.chars().collect::<Vec<_>>());
    let (distance, near) =
        known.iter().map(|candidate| (distance(candidate), *candidate)).min_by_key(|(d, _)| *d)?;
    (distance <= (word.len().max(near.len()) / 3).max(1)).then_some(near)
}

/// How many insertions, deletions, substitutions and exchanges of neighbours lead from `a` to `b`
/// (optimal string alignment).
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = vec![0; b.len() + 1];
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let substituted = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        core::mem::swap(&mut before_last, &mut last);
        core::mem::swap(&mut last, &mut row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_for_a_slip_of_the_pen_only() {
        let known = ["role", "tap", "bridge", "uplink", "mac", "mtu", "address"];
        for (word, near) in [
            ("adress", Some("address")),
            ("addres", Some("address")),
            ("adderss", Some("address")),
            ("addresses", Some("address")),
            ("brigde", Some("bridge")),
            ("Role", Some("role")),
            ("rol", Some("role")),
            ("tpa", Some("tap")),
            ("mut", Some("mtu")),
            ("weight", None),
            ("", None),
            ("a", None),
            ("a_key_that_is_much_longer_than_any_key_could_be", None),
        ] {
            assert_eq!(nearest(word, &known), near, "{word}");
        }
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "axc", 1),
            ("abc", "abxc", 1),
            ("abcd", "badc", 2),
            ("kitten", "sitting", 3),
        ] {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            assert_eq!(edit_distance(&chars(a), &chars(b)), edits, "{a} {b}");
        }
    }
}

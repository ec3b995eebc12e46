//! What the TOML parser has to say, in the words of our diagnostics.

use super::diagnostics::{Mistake, Mistakes, ticked};

/// Reports each syntax error of `text`.
pub(super) fn report(text: &str, errors: &[toml::de::Error], mistakes: &mut Mistakes) {
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let found = text.get(span.clone()).unwrap_or_default();
        let mistake = if error.message() == "duplicate key" {
            Mistake::syntax(span, format!("{} is defined twice", ticked(found)))
                .expected("expected each key and each table once")
                .help("remove one; only tables in double brackets can be repeated")
        } else {
            let (what, expected) = match error.message().split_once(", expected ") {
                Some((what, expected)) => (what, Some(expected)),
                None => (error.message(), None),
            };
            let mistake = Mistake::syntax(span, format!("not TOML: {what}"));
            match expected {
                Some(expected) => mistake.expected(format!("expected {expected}")),
                None => mistake,
            }
        };
        mistakes.report(mistake);
    }
}

//! What is wrong with a configuration, for people.
//!
//! Readers and checks describe each [`Mistake`] by a byte range of the text and hand it to
//! [`Mistakes`]; at the end that becomes [`Diagnostics`], sorted by position and rendered with the
//! offending line quoted. Plain text, no colour, nothing of the file's control characters.

use core::fmt;
use core::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// More mistakes than this are counted, but not listed.
pub const MISTAKES_LISTED_MAX: usize = 1000;

/// Longer lines are pointed at, but not quoted: rendering costs what the line is long.
const QUOTED_LINE_BYTES_MAX: usize = 4096;

/// Longer values are cut when a message repeats them.
const QUOTED_VALUE_CHARS_MAX: usize = 64;

/// Everything that is wrong with a configuration; never empty. `Display` gives it whole, without a
/// newline at the end.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    origin: String,
    text: String,
    items: Vec<Diagnostic>,
    omitted: usize,
}

impl Diagnostics {
    /// How many mistakes there are, those beyond [`MISTAKES_LISTED_MAX`] included.
    pub fn count(&self) -> usize {
        self.items.len() + self.omitted
    }

    /// What the file was called.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The mistakes in the order of the file.
    pub fn iter(&self) -> core::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// One mistake about the text as a whole.
    pub(super) fn whole(origin: &str, message: String, help: &str) -> Diagnostics {
        let mut mistakes = Mistakes::default();
        mistakes.report(Mistake::new(Span::default(), message).help(help));
        mistakes.into_diagnostics("", origin)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = core::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain();
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n\n")?;
            }
            formatter.write_str(&renderer.render(&[self.group(item)]))?;
        }
        if self.omitted > 0 {
            write!(formatter, "\n\n… and {} more mistakes, not listed", self.omitted)?;
        }
        Ok(())
    }
}

impl core::error::Error for Diagnostics {}

impl Diagnostics {
    fn group<'a>(&'a self, item: &'a Diagnostic) -> Group<'a> {
        let title = Level::ERROR.primary_title(item.message.as_str());
        let mut group = self.quote(Group::with_title(title), AnnotationKind::Primary, &item.place);
        if let Some(related) = &item.related {
            group = self.quote(group, AnnotationKind::Context, related);
        }
        if let Some(help) = &item.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    fn quote<'a>(&'a self, group: Group<'a>, kind: AnnotationKind, place: &'a Place) -> Group<'a> {
        let line = &self.text[place.line_range.clone()];
        if line.len() > QUOTED_LINE_BYTES_MAX || line.is_empty() {
            let origin = Origin::path(self.origin.as_str());
            return group.element(origin.line(place.line).char_column(place.column));
        }
        let span = place.marked.clone();
        group.element(
            Snippet::source(line)
                .path(self.origin.as_str())
                .line_start(place.line)
                .annotation(kind.span(span).label(place.label.as_deref())),
        )
    }
}

/// One mistake.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// What is wrong, in one line that stands for itself.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    place: Place,
    related: Option<Place>,
}

impl Diagnostic {
    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> usize {
        self.place.column
    }

    /// What was expected there.
    pub fn expected(&self) -> Option<&str> {
        self.place.label.as_deref()
    }

    /// The line of the other definition this one clashes with, if that is what is wrong.
    pub fn related_line(&self) -> Option<usize> {
        self.related.as_ref().map(|place| place.line)
    }
}

/// A stretch of one line.
#[derive(Clone, Debug)]
struct Place {
    line: usize,
    column: usize,
    /// The line's bytes in the text, without its end.
    line_range: Range<usize>,
    /// What is marked, in bytes from the start of the line.
    marked: Range<usize>,
    label: Option<String>,
}

/// A byte range of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub start: usize,
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Span {
        Span { start: range.start, end: range.end }
    }
}

/// Proof that a mistake was reported: whoever lacks a value holds this instead of it, so a
/// snapshot cannot silently come out incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reported(());

/// A value, or the proof that its absence was reported.
pub(super) type Read<T> = Result<T, Reported>;

/// One mistake, by its place in the text. Boxed, because it is returned where a value could be.
#[derive(Debug)]
pub(super) struct Mistake(Box<Parts>);

#[derive(Debug)]
struct Parts {
    span: Span,
    message: String,
    expected: Option<String>,
    help: Option<String>,
    related: Option<(Span, &'static str)>,
    kind: Kind,
}

/// What is left of a mistake if the text has syntax errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Syntax,
    /// It stands, unless there is a syntax error in the same line.
    Plain,
    /// Something is missing, or has another shape: the syntax error may be why.
    Structural,
}

impl Mistake {
    pub fn new(span: impl Into<Span>, message: impl Into<String>) -> Mistake {
        Mistake::of(Kind::Plain, span.into(), message.into())
    }

    /// The text is not TOML here.
    pub fn syntax(span: impl Into<Span>, message: impl Into<String>) -> Mistake {
        Mistake::of(Kind::Syntax, span.into(), message.into())
    }

    /// Something is missing here, or not of the shape it should have.
    pub fn structural(span: impl Into<Span>, message: impl Into<String>) -> Mistake {
        Mistake::of(Kind::Structural, span.into(), message.into())
    }

    fn of(kind: Kind, span: Span, message: String) -> Mistake {
        let (expected, help, related) = (None, None, None);
        Mistake(Box::new(Parts { span, message, expected, help, related, kind }))
    }

    /// What was expected; shown under the quoted line.
    pub fn expected(mut self, expected: impl Into<String>) -> Mistake {
        self.0.expected = Some(expected.into());
        self
    }

    /// What to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Mistake {
        self.0.help = Some(help.into());
        self
    }

    /// The other definition this one clashes with, and what it is.
    pub fn related(mut self, span: Span, label: &'static str) -> Mistake {
        self.0.related = Some((span, label));
        self
    }
}

/// Collects mistakes while a text is read.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    found: Vec<Parts>,
    omitted: usize,
}

impl Mistakes {
    pub fn report(&mut self, mistake: Mistake) -> Reported {
        if self.found.len() < MISTAKES_LISTED_MAX {
            self.found.push(*mistake.0);
        } else {
            self.omitted += 1;
        }
        Reported(())
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What people get to see, of a `text` called `origin`. If it has syntax errors, only those
    /// other mistakes are kept which they cannot have caused.
    pub fn into_diagnostics(mut self, text: &str, origin: &str) -> Diagnostics {
        let lines = Lines::new(text);
        let broken: Vec<usize> = self
            .found
            .iter()
            .filter(|mistake| mistake.kind == Kind::Syntax)
            .map(|mistake| lines.index(mistake.span.start))
            .collect();
        if !broken.is_empty() {
            self.found.retain(|mistake| match mistake.kind {
                Kind::Syntax => true,
                Kind::Plain => !broken.contains(&lines.index(mistake.span.start)),
                Kind::Structural => false,
            });
        }
        self.found.sort_by_key(|mistake| mistake.span.start);
        // The second syntax error of a line is most often a consequence of the first.
        self.found.dedup_by(|later, former| {
            later.kind == Kind::Syntax
                && former.kind == Kind::Syntax
                && lines.index(later.span.start) == lines.index(former.span.start)
        });
        let items = self.found.into_iter().map(|mistake| Diagnostic {
            place: lines.place(mistake.span, mistake.expected),
            related: mistake.related.map(|(span, label)| lines.place(span, Some(label.to_owned()))),
            message: mistake.message,
            help: mistake.help,
        });
        Diagnostics {
            items: items.collect(),
            origin: printable(origin),
            text: text.to_owned(),
            omitted: self.omitted,
        }
    }
}

/// `text` in quotation marks, fit to be part of a message: cut if it is long, control characters
/// escaped.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", excerpt(text))
}

/// Like [`quoted`], in backticks: for keys and names of the file.
pub(super) fn ticked(text: &str) -> String {
    format!("`{}`", excerpt(text))
}

/// The start of `text`, without control characters.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(QUOTED_VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text),
    }
}

/// `text` with its control characters, and the characters that turn the reading direction,
/// escaped.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        let turns_direction = matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if char.is_control() || turns_direction {
            out.extend(char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    out
}

/// Where the lines of a text start.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Lines<'t> {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = core::iter::once(0).chain(after_newlines.map(|(at, _)| at + 1)).collect();
        Lines { text, starts }
    }

    /// The line that holds this byte, from 0.
    fn index(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    fn place(&self, span: Span, label: Option<String>) -> Place {
        let at = self.boundary(span.start);
        let index = self.index(at);
        let start = self.starts[index];
        let end = self.starts.get(index + 1).copied().unwrap_or(self.text.len());
        let line = self.text[start..end].trim_end_matches(['\n', '\r']);
        let marked_start = (at - start).min(line.len());
        let marked_end = self.boundary(span.end).saturating_sub(start);
        Place {
            line: index + 1,
            column: line[..marked_start].chars().count() + 1,
            line_range: start..start + line.len(),
            marked: marked_start..marked_end.clamp(marked_start, line.len()),
            label,
        }
    }

    /// The nearest character boundary not after `at`.
    fn boundary(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at)
    }
}

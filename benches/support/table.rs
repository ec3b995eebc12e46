//! The table of what was promised and what was measured.

use super::session::{Series, Spread};

/// A figure that is promised, or aimed at.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Told, not promised.
    None,
}

impl Bound {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
            Bound::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Bound::AtLeast(bound) => format!("≥ {bound:.2}"),
            Bound::AtMost(bound) => format!("≤ {bound:.2}"),
            Bound::None => "–".to_owned(),
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub what: String,
    pub must: Bound,
    pub aim: Bound,
    pub measured: Spread,
    /// What else there is to say, as the figures behind a ratio.
    pub note: String,
}

impl Row {
    /// A row without bounds.
    pub fn told(what: impl Into<String>, measured: Spread, note: impl Into<String>) -> Row {
        Row { what: what.into(), must: Bound::None, aim: Bound::None, measured, note: note.into() }
    }

    fn judgement(&self) -> &'static str {
        match (self.must, self.measured.median) {
            (Bound::None, _) => "",
            (must, value) if !must.is_met_by(value) => "MISSED",
            (_, value) if self.aim.is_met_by(value) => "aim",
            _ => "must",
        }
    }
}

/// The figures behind a ratio: nanoseconds a frame of each.
pub fn nanos(series: &[&Series]) -> String {
    let of = |series: &&Series| format!("{} {:.0}", series.name, series.cpu().median);
    let parts: Vec<String> = series.iter().map(of).collect();
    format!("ns a frame: {}", parts.join(", "))
}

pub fn print_header() {
    println!("| what | must | aim | measured (quartiles) | reached | |");
    println!("|---|---:|---:|---:|---|---|");
}

/// Prints rows as they come.
pub fn print(rows: &[Row]) {
    for row in rows {
        let Spread { median, low, high } = row.measured;
        let digits = if median >= 100.0 { 0 } else { 2 };
        println!(
            "| {} | {} | {} | **{median:.digits$}** ({low:.digits$}–{high:.digits$}) | {} | {} |",
            row.what,
            row.must.text(),
            row.aim.text(),
            row.judgement(),
            row.note
        );
    }
}

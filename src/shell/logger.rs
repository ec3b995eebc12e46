//! The log: one line a record on standard error, subject first.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::clock;

/// Starts logging; later calls change nothing.
pub fn start(level: LevelFilter) {
    let journal = std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| is_stream(&stream, &io::stderr().as_fd()));
    let logger = Logger { level, format: if journal { Format::Journal } else { Format::Plain } };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Time of day and level.
    Plain,
    /// A priority as sd-daemon(3) has it; the journal knows the time.
    Journal,
}

struct Logger {
    level: LevelFilter,
    format: Format,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries' own debugging is for those who ask for everything.
        let level = match self.level {
            LevelFilter::Trace => LevelFilter::Trace,
            level if metadata.target().starts_with("vipr") => level,
            level => level.min(LevelFilter::Error),
        };
        metadata.level() <= level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // One write a record, so that lines of two threads never mix. Nobody is left to be
            // told if standard error is gone.
            let _ = io::stderr().write_all(line(self.format, SystemTime::now(), record).as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(format: Format, now: SystemTime, record: &Record<'_>) -> String {
    let mut text = match format {
        Format::Plain => {
            format!("{} {:<5} ", clock::timestamp(now), record.level().as_str().to_lowercase())
        }
        Format::Journal => String::new(),
    };
    let _ = write!(text, "{}", record.args());
    if format == Format::Journal {
        // The journal makes a record of every line.
        let prefix = priority(record.level());
        text = text.lines().map(|line| format!("{prefix}{line}\n")).collect();
    } else {
        text.push('\n');
    }
    text
}

const fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// Whether `stream` (`DEVICE:INODE`, as systemd.exec(5) has it) names this descriptor's file.
fn is_stream(stream: &str, descriptor: &impl AsFd) -> bool {
    rustix::fs::fstat(descriptor)
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn record<'a>(level: Level, args: std::fmt::Arguments<'a>) -> Record<'a> {
        Record::builder().level(level).target("vipr::shell").args(args).build()
    }

    #[test]
    fn a_plain_line_has_time_level_and_text() {
        let time = UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(
            line(Format::Plain, time, &record(Level::Warn, format_args!("segment back: gone"))),
            "1970-01-01T00:00:01.000Z warn  segment back: gone\n"
        );
    }

    #[test]
    fn the_journal_gets_a_priority_on_every_line() {
        let time = UNIX_EPOCH;
        assert_eq!(
            line(Format::Journal, time, &record(Level::Error, format_args!("refused\n  why"))),
            "<3>refused\n<3>  why\n"
        );
    }

    #[test]
    fn libraries_are_quiet_unless_everything_is_asked_for() {
        let rows = [
            (LevelFilter::Info, "vipr::shell", Level::Info, true),
            (LevelFilter::Info, "vipr::shell", Level::Debug, false),
            (LevelFilter::Debug, "notify::inotify", Level::Warn, false),
            (LevelFilter::Info, "notify::inotify", Level::Error, true),
            (LevelFilter::Off, "notify::inotify", Level::Error, false),
            (LevelFilter::Trace, "mio::poll", Level::Trace, true),
        ];
        for (filter, target, level, expected) in rows {
            let logger = Logger { level: filter, format: Format::Plain };
            let metadata = Metadata::builder().level(level).target(target).build();
            assert_eq!(logger.enabled(&metadata), expected, "{filter} {target} {level}");
        }
    }

    #[test]
    fn only_the_very_stream_the_environment_names_is_the_journal() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert!(is_stream(&format!("{}:{}", stat.st_dev, stat.st_ino), &file));
        assert!(!is_stream(&format!("{}:{}", stat.st_dev, stat.st_ino + 1), &file));
        assert!(!is_stream("", &file));
    }
}

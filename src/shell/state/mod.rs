//! What a router leaves for the next one: a file, written at a clean stop and taken up by the next
//! start, so that a restart costs no connection.
//!
//! A file is taken up once at most: it is moved aside before it is read, then removed, or kept for a
//! person if it was refused. So a router that dies over a file does not meet it again, nor does one
//! that dies later restore what is long over. What is in the file is [`format`]'s business, what it
//! means the director's.

mod format;

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use self::format::{Sound, Unsound, Writer};
use crate::config::format_duration;
use crate::director::connections::ConnectionState;
use crate::director::state::{Imported, Record};
use crate::director::{Director, Instant};

/// What was taken up. `Display` gives the rest of a line that begins with the file's name.
#[derive(Debug)]
pub(super) struct TakenUp {
    imported: Imported,
    /// How long ago it was left.
    down: Duration,
    /// Why the rest could not be read, when the file had just been found sound.
    cut_short: Option<Unsound>,
}

/// Why nothing was taken up. `Display` gives the rest of a line that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("refused, because {reason}; kept as {}; starting without connections", kept.display())]
    SetAside { reason: Reason, kept: PathBuf },
    #[error("not taken up, because it cannot be moved out of the way: {0}")]
    Immovable(io::Error),
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error(transparent)]
    Unsound(#[from] Unsound),
    #[error(
        "it was left {} ago, and state_max_age is {}",
        format_duration(whole_seconds(*.age)),
        format_duration(*.max)
    )]
    TooOld { age: Duration, max: Duration },
    #[error("it was left {} from now: the clock was wrong then, or is now",
        format_duration(whole_seconds(*.0)))]
    FromTheFuture(Duration),
}

/// What was left. `Display` gives the rest of a line that begins with the file's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    connections: u64,
    templates: u64,
    bytes: u64,
}

/// Takes up what the router before this one left at `path`, at most `max_age` ago; `None` if it
/// left nothing. `wall` and `now` are the same moment.
///
/// # Errors
/// Why it was refused. The director is then as it was.
pub(super) fn take_up(
    path: &Path,
    max_age: Duration,
    director: &mut Director,
    now: Instant,
    wall: SystemTime,
) -> Result<Option<TakenUp>, Refusal> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Refusal::Unreadable(error)),
    };
    let aside = with_ending(path, ".taken");
    fs::rename(path, &aside).map_err(Refusal::Immovable)?;
    let keep = |reason| {
        let kept = with_ending(path, ".refused");
        let kept = if fs::rename(&aside, &kept).is_ok() { kept } else { aside.clone() };
        Refusal::SetAside { reason, kept }
    };
    let len = file.metadata().map_err(|error| keep(Unsound::Io(error).into()))?.len();
    let mut sound = Sound::check(file, len).map_err(|unsound| keep(unsound.into()))?;
    let down = age(sound.written_at, wall, max_age).map_err(keep)?;

    let mut import = director.import(now, down);
    let cut_short = sound.records(|record| import.take(record)).err();
    let imported = import.finish();
    // If it stays, it is in nobody's way.
    let _ = fs::remove_file(&aside);
    Ok(Some(TakenUp { imported, down, cut_short }))
}

/// Leaves what a director has for the next router, in place of what is there.
///
/// # Errors
/// When the file cannot be written. What was there before stays.
pub(super) fn leave(
    path: &Path,
    director: &Director,
    now: Instant,
    wall: SystemTime,
) -> io::Result<Left> {
    let unfinished = Unfinished::make(path)?;
    let mut writer = Writer::new(&unfinished.file, wall)?;
    let mut left = Left::default();
    director.export(now, |record| {
        match record {
            Record::Connection(of) if of.state == ConnectionState::Template => left.templates += 1,
            Record::Connection(_) => left.connections += 1,
            Record::RealServer(_) | Record::Neighbor(_) => {}
        }
        writer.push(record)
    })?;
    (_, left.bytes) = writer.finish()?;
    unfinished.file.sync_all()?;
    fs::rename(&unfinished.path, path)?;
    // For the sake of a machine that crashes now; the file is in its place whatever comes of it.
    let _ = File::open(directory(path)).and_then(|directory| directory.sync_all());
    Ok(left)
}

/// Whether [`leave`] can be expected to work.
///
/// # Errors
/// Why it would not.
pub(super) fn check(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "there is something else there"));
    }
    Unfinished::make(path).map(drop)
}

/// What to do about an error of [`check`] or [`leave`].
pub(super) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "make its directory",
        ErrorKind::AlreadyExists => "move that out of the way, or name another file",
        ErrorKind::StorageFull => "make room, or name another file",
        _ => "name a file in a directory that can be written",
    }
}

/// A file in the same directory that becomes the state file when it is complete. It is removed
/// when dropped before.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    fn make(state: &Path) -> io::Result<Unfinished> {
        let path = with_ending(state, ".new");
        // A router that was killed while it wrote may have left one.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Unfinished { file, path })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone under this name if it was finished.
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a regular file, and nothing else: reading a FIFO could take for ever.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// How long ago a file was written. A clock that was set back a little says "just now".
fn age(written_at: SystemTime, wall: SystemTime, max: Duration) -> Result<Duration, Reason> {
    match wall.duration_since(written_at) {
        Ok(age) if age <= max => Ok(age),
        Ok(age) => Err(Reason::TooOld { age, max }),
        Err(ahead) if ahead.duration() <= max => Ok(Duration::ZERO),
        Err(ahead) => Err(Reason::FromTheFuture(ahead.duration())),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

impl Refusal {
    /// Whether this is the ordinary lot of a file: that its router was away for too long.
    pub fn is_ordinary(&self) -> bool {
        matches!(self, Refusal::SetAside { reason: Reason::TooOld { .. }, .. })
    }
}

impl TakenUp {
    /// Whether the whole file was read.
    pub fn is_whole(&self) -> bool {
        self.cut_short.is_none()
    }
}

impl Display for TakenUp {
    /// `taken up after 1.2 s: connections 1000, … MACs 3; dropped: expired 5`.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Imported { connections, templates, overrides, neighbors, dropped } = self.imported;
        write!(
            formatter,
            "taken up after {:.1} s: connections {connections}, persistence templates {templates}, \
             weights set by hand {overrides}, MACs {neighbors}",
            self.down.as_secs_f64()
        )?;
        let reasons = [
            (dropped.expired, "expired"),
            (dropped.unconfigured, "no longer configured"),
            (dropped.no_room, "no room (connections_max)"),
            (dropped.invalid, "invalid"),
            (dropped.overrides, "weights set by hand over configured ones that changed"),
        ];
        let reasons = reasons.iter().filter(|(count, _)| *count > 0);
        for (at, (count, reason)) in reasons.enumerate() {
            let before = if at == 0 { "; dropped:" } else { "," };
            write!(formatter, "{before} {reason} {count}")?;
        }
        match &self.cut_short {
            Some(error) => write!(formatter, "; the rest is lost: {error}"),
            None => Ok(()),
        }
    }
}

impl Display for Left {
    /// `left for the next start: connections 1000, persistence templates 12 (14000 bytes)`.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Left { connections, templates, bytes } = self;
        write!(
            formatter,
            "left for the next start: connections {connections}, persistence templates \
             {templates} ({bytes} bytes)"
        )
    }
}

#[cfg(test)]
mod tests;

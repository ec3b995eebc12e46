//! `vipr replay`: captured frames through the very core that runs on the wire.
//!
//! The captures are merged by time stamp, and their time is the core's clock. What the core would
//! log goes to standard error, likewise at the capture's time. A capture that
//! turns out broken before the first frame is judged is a usage error; later it ends the replay
//! with exit status 1, after the lines and frames so far.

use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Failure, output};
use crate::config::Snapshot;
use crate::director::{Action, Director, Instant, Limits, SegmentId, Severity, Transmit, Verdict};
use crate::port::pcap::{Capture, CaptureError, CaptureWriter};
use crate::shell::file;
use crate::wire::Frame;
use crate::wire::vlan::{self, TAG_LEN, Tag};

/// Offer captured frames to the router's core.
///
/// Prints one line of JSON a frame: time, segment, verdict (forwarded, replied, consumed, held,
/// dropped), reason (of a drop), service, real_server, out_segment. What the router would log
/// goes to standard error.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,

    /// A capture (pcap, Ethernet) and the segment its frames arrive on; may be repeated. Captures
    /// are merged by time stamp, ties in the order given.
    #[arg(long = "in", value_name = "SEGMENT=IN.pcap", required = true, value_parser = parse_input)]
    inputs: Vec<Input>,

    /// Where to write what the router sends, as SEGMENT.pcap; made if absent.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

/// An `--in`.
#[derive(Clone, Debug)]
struct Input {
    segment: String,
    path: PathBuf,
}

fn parse_input(text: &str) -> Result<Input, String> {
    match text.split_once('=') {
        Some((segment, path)) if !segment.is_empty() && !path.is_empty() => {
            Ok(Input { segment: segment.to_owned(), path: path.into() })
        }
        _ => Err("expected SEGMENT=IN.pcap, as in front=clients.pcap".to_owned()),
    }
}

/// Keys the core's hashes; fixed, so that the same input gives the same output.
const SEED: u64 = 0x7669_7072;

/// The MTU of a segment whose configuration leaves it to the device, in bytes of the IP packet.
const DEVICE_MTU: u16 = 1500;

/// Time between two frames, at most: more is more likely a wrong time stamp, and firing all that
/// would be due in between takes minutes.
const GAP_MAX: Duration = Duration::from_secs(90 * DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Timeouts fired between two frames, at most: what a gap of that length has at one every two
/// seconds. More health checks than that make it a shorter gap.
const TIMEOUTS_MAX: u32 = 1 << 22;

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.config;
    let snapshot = Arc::new(file::parse(path, &file::read(path)?)?);
    let mut sources = open_all(&arguments.inputs, &snapshot)?;
    let outputs = match &arguments.out_dir {
        Some(folder) => create_all(folder, &snapshot, &arguments.inputs)?,
        None => BTreeMap::new(),
    };
    // The time of the first frame; without one, nothing ever happens.
    let Some(start) = sources.iter().filter_map(|source| source.time).min() else {
        return finish_all(outputs.into_values());
    };
    output::print(|lines| {
        let mut replay = Replay::new(start, snapshot, lines, outputs);
        let fed = replay.feed(&mut sources);
        let finished = finish_all(replay.outputs.into_values());
        fed.and(finished)
    })
}

/// A capture under way, with its next frame.
struct Source {
    /// Its place in the configuration.
    segment: usize,
    path: PathBuf,
    capture: Capture<BufReader<File>>,
    /// The time of the next frame; `None` at the end.
    time: Option<Duration>,
    frame: Vec<u8>,
}

impl Source {
    fn open(input: &Input, segment: usize) -> Result<Source, CaptureError> {
        let file = File::open(&input.path).map_err(CaptureError::Read)?;
        let capture = Capture::new(BufReader::with_capacity(1 << 18, file))?;
        let path = input.path.clone();
        let mut source = Source { segment, path, capture, time: None, frame: Vec::new() };
        source.advance()?;
        Ok(source)
    }

    fn advance(&mut self) -> Result<(), CaptureError> {
        self.time = self.capture.next_frame(&mut self.frame)?;
        Ok(())
    }
}

/// Opens every input and reads its first frame.
fn open_all(inputs: &[Input], snapshot: &Snapshot) -> Result<Vec<Source>, Failure> {
    let mut sources: Vec<Source> = Vec::new();
    for input in inputs {
        let Input { segment: name, path } = input;
        let Some(segment) = snapshot.segments.iter().position(|segment| *segment.name == **name)
        else {
            let names: Vec<&str> = snapshot.segments.iter().map(|segment| &*segment.name).collect();
            return Err(Failure::Usage(format!(
                "--in {name}={}: no such segment; the configuration has {}",
                path.display(),
                names.join(", ")
            )));
        };
        if let Some(other) = sources.iter().find(|source| source.segment == segment) {
            return Err(Failure::Usage(format!(
                "--in {name}={}: segment {name} has a capture already, {}",
                path.display(),
                other.path.display()
            )));
        }
        let source = Source::open(input, segment)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        sources.push(source);
    }
    Ok(sources)
}

type Output = CaptureWriter<BufWriter<File>>;

/// Makes the folder and in it a capture for every segment, by the segment's place in the
/// configuration. No input is overwritten.
fn create_all(
    folder: &Path,
    snapshot: &Snapshot,
    inputs: &[Input],
) -> Result<BTreeMap<usize, Output>, Failure> {
    let failed = |path: &Path, error: io::Error| {
        Failure::Running(format!("{}: cannot be written: {error}", path.display()))
    };
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let mut outputs = BTreeMap::new();
    for (index, segment) in snapshot.segments.iter().enumerate() {
        if segment.name.contains(['/', '\0']) {
            return Err(Failure::Usage(format!(
                "segment {}: its name cannot be a file's in --out-dir",
                segment.name
            )));
        }
        let path = folder.join(format!("{}.pcap", segment.name));
        let existing = identity(&path);
        if existing.is_some() && inputs.iter().any(|input| identity(&input.path) == existing) {
            return Err(Failure::Usage(format!(
                "{}: is read with --in and would be overwritten; choose another --out-dir",
                path.display()
            )));
        }
        let output = File::create(&path)
            .and_then(|file| CaptureWriter::new(BufWriter::new(file)))
            .map_err(|error| failed(&path, error))?;
        outputs.insert(index, output);
    }
    Ok(outputs)
}

fn finish_all(outputs: impl Iterator<Item = Output>) -> Result<(), Failure> {
    for output in outputs {
        output.finish().map_err(output_failed)?;
    }
    Ok(())
}

fn output_failed(error: io::Error) -> Failure {
    Failure::Running(format!("--out-dir: cannot be written: {error}"))
}

/// The core, its clock, and where its output goes.
struct Replay<'a> {
    director: Director,
    /// Since the Unix epoch; never runs back.
    clock: Duration,
    /// By place in the configuration.
    segments: Vec<(SegmentId, Arc<str>)>,
    lines: &'a mut dyn Write,
    outputs: BTreeMap<SegmentId, Output>,
}

fn instant(time: Duration) -> Instant {
    // A capture's seconds have 32 bits.
    Instant::ZERO + time
}

impl<'a> Replay<'a> {
    /// The core as it is at the time of the first frame, before that frame.
    fn new(
        start: Duration,
        snapshot: Arc<Snapshot>,
        lines: &'a mut dyn Write,
        outputs: BTreeMap<usize, Output>,
    ) -> Replay<'a> {
        let mut director = Director::new(instant(start), snapshot, Limits::default(), SEED);
        let segments = director.segments();
        for (segment, _) in &segments {
            director.set_device_mtu(*segment, DEVICE_MTU);
        }
        let outputs =
            outputs.into_iter().map(|(index, output)| (segments[index].0, output)).collect();
        Replay { director, clock: start, segments, lines, outputs }
    }

    /// Offers all frames in the order of their time, then fires what is due by the last one.
    fn feed(&mut self, sources: &mut [Source]) -> Result<(), Failure> {
        self.drain()?;
        // Of equal times, `min_by_key` gives the first.
        while let Some((time, source)) = sources
            .iter_mut()
            .filter_map(|source| Some((source.time?, source)))
            .min_by_key(|(time, _)| *time)
        {
            self.fire_timeouts(time)?;
            self.clock = self.clock.max(time);
            self.offer(source)?;
            source
                .advance()
                .map_err(|error| Failure::Running(format!("{}: {error}", source.path.display())))?;
        }
        self.fire_timeouts(self.clock)
    }

    /// Fires what is due until `end`, each timeout at its own time.
    fn fire_timeouts(&mut self, end: Duration) -> Result<(), Failure> {
        let end = self.clock.max(end);
        let gap = end - self.clock;
        if gap > GAP_MAX {
            return Err(Failure::Running(format!(
                "{} days pass before the frame of {}: is its time stamp right?",
                gap.as_secs() / DAY_SECONDS,
                Seconds(end)
            )));
        }
        for _ in 0..TIMEOUTS_MAX {
            match self.director.poll_timeout() {
                Some(due) if due <= instant(end) => {
                    self.clock = self.clock.max(due.since(Instant::ZERO));
                    self.director.handle_timeout(instant(self.clock));
                    self.drain()?;
                }
                _ => return Ok(()),
            }
        }
        Err(Failure::Running(format!(
            "more than {TIMEOUTS_MAX} timeouts before the frame of {}: is its time stamp right?",
            Seconds(end)
        )))
    }

    /// Offers the source's frame and writes what comes of it.
    fn offer(&mut self, source: &mut Source) -> Result<(), Failure> {
        let (ingress, _) = self.segments[source.segment];
        let mut frame = Frame::from_wire(&mut source.frame);
        let ingress = self.director.segment_of(ingress, &frame);
        let verdict = self.director.handle_frame(instant(self.clock), ingress, &mut frame);
        if let Action::Forward { egress } = verdict.action
            && let Some(output) = self.outputs.get_mut(&egress)
        {
            write(output, self.clock, frame.bytes, frame.offload.tag)?;
        }
        self.drain()?;
        Ok(self.write_line(ingress, &verdict)?)
    }

    /// Takes everything out of the core that waits there.
    fn drain(&mut self) -> Result<(), Failure> {
        while let Some(Transmit { egress, bytes, offload }) = self.director.poll_transmit() {
            if let Some(output) = self.outputs.get_mut(&egress) {
                write(output, self.clock, bytes, offload.tag)?;
            }
        }
        while let Some(event) = self.director.poll_event() {
            let level = match event.severity() {
                Severity::Warning => "warn ",
                Severity::Info => "info ",
            };
            // As the log has it, but at the capture's time. No one is left to tell if it fails.
            let _ = writeln!(io::stderr(), "{} {level} {event}", Seconds(self.clock));
        }
        Ok(())
    }

    /// One line of JSON. The time is written by hand: a double would lose its nanoseconds.
    fn write_line(&mut self, ingress: SegmentId, verdict: &Verdict) -> io::Result<()> {
        let Verdict { action, service, real_server } = *verdict;
        let (name, reason, out_segment) = match action {
            Action::Forward { egress } | Action::Fragment { egress } => {
                ("forwarded", None, Some(egress))
            }
            Action::Reply => ("replied", None, Some(ingress)),
            Action::Consume => ("consumed", None, None),
            Action::Hold => ("held", None, None),
            Action::Drop(reason) => ("dropped", Some(reason.name()), None),
        };
        let director = &self.director;
        let fields = [
            ("segment", director.segment_name(ingress).map(|name| &**name)),
            ("verdict", Some(name)),
            ("reason", reason),
            ("service", service.and_then(|id| director.service_name(id)).map(|name| &**name)),
            (
                "real_server",
                real_server.and_then(|id| director.real_server_name(id)).map(|name| &**name),
            ),
            (
                "out_segment",
                out_segment.and_then(|id| director.segment_name(id)).map(|name| &**name),
            ),
        ];
        write!(self.lines, "{{\"time\":{}", Seconds(self.clock))?;
        for (field, value) in fields {
            write!(self.lines, ",\"{field}\":")?;
            serde_json::to_writer(&mut *self.lines, &value)?;
        }
        self.lines.write_all(b"}\n")
    }
}

/// Writes a frame as it would be on a wire.
fn write(
    output: &mut Output,
    time: Duration,
    bytes: &[u8],
    tag: Option<Tag>,
) -> Result<(), Failure> {
    let Some(tag) = tag else { return output.write(time, bytes).map_err(output_failed) };
    let mut tagged = Vec::with_capacity(bytes.len() + TAG_LEN);
    vlan::copy_tagged(&mut tagged, bytes, tag);
    output.write(time, &tagged).map_err(output_failed)
}

/// A time as seconds with nine decimals.
struct Seconds(Duration);

impl core::fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

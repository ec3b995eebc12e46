//! What health checks cost the loop that moves frames: a thousand real servers, each checked once
//! a second, every answer given at once. Only the director's calls are timed; ports and real
//! servers are not here.
//!
//!     cargo bench --bench checks

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant as Wall};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use vipr::config;
use vipr::director::{Director, Instant, Limits, SegmentId};
use vipr::wire::Frame;

const REAL_SERVERS: usize = 1000;
const SECONDS: u64 = 10;

fn main() {
    // What `cargo test --benches` runs takes no time.
    let seconds = if std::env::args().any(|argument| argument == "--bench") { SECONDS } else { 2 };
    println!("{REAL_SERVERS} real servers, each checked once a second:");
    for (name, keys) in [
        ("no check", ""),
        ("icmp, answered", "kind = \"icmp\""),
        ("tcp, answered", "kind = \"tcp\""),
        ("http, answered", "kind = \"http\"\nbody = \"well\""),
        ("http, all silent", "kind = \"http\"\ntimeout = \"900ms\"\nretries = 0"),
    ] {
        let answers = !name.contains("silent");
        let (spent, frames) = run(keys, seconds, answers);
        let share = spent.as_secs_f64() / seconds as f64 * 100.0;
        println!(
            "  {name:<18} {share:5.2} % of a core, {:7.0} frames/s",
            frames as f64 / seconds as f64
        );
    }
}

/// The time spent in the director, and the frames that came and went.
fn run(keys: &str, seconds: u64, answers: bool) -> (Duration, u64) {
    let snapshot = config::parse(&configuration(keys), "bench.toml").expect("it is in order");
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut director = Director::new(now, Arc::new(snapshot), Limits::default(), 7);
    let segment = director.segments()[0].0;
    // The warm-up time.
    drive(&mut director, &mut now, Duration::from_secs(2), segment, answers);
    drive(&mut director, &mut now, Duration::from_secs(seconds), segment, answers)
}

fn drive(
    director: &mut Director,
    now: &mut Instant,
    time: Duration,
    segment: SegmentId,
    answers: bool,
) -> (Duration, u64) {
    let until = *now + time;
    let (mut spent, mut frames) = (Duration::ZERO, 0);
    let mut sent: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut replies: Vec<Vec<u8>> =
            if answers { sent.iter().filter_map(|f| reply(f)).collect() } else { vec![] };
        frames += (sent.len() + replies.len()) as u64;
        sent.clear();
        let start = Wall::now();
        for bytes in &mut replies {
            black_box(director.handle_frame(*now, segment, &mut Frame::plain(bytes)));
        }
        if replies.is_empty() {
            match director.poll_timeout() {
                Some(due) if due <= until => *now = (*now).max(due),
                _ => break,
            }
            director.handle_timeout(*now);
        }
        while let Some(transmit) = director.poll_transmit() {
            sent.push(transmit.bytes.to_vec());
        }
        while let Some(event) = director.poll_event() {
            black_box(event);
        }
        spent += start.elapsed();
    }
    *now = until;
    (spent, frames)
}

fn configuration(keys: &str) -> String {
    let mut text = "[segment.lan]\nrole = \"both\"\ntap = \"t\"\nmac = \"02:00:00:00:01:01\"\n\
                    address = [\"10.0.0.1/8\"]\n[[service]]\nvip = \"192.0.2.10\"\n\
                    protocol = \"tcp\"\nports = 80\n"
        .to_owned();
    if !keys.is_empty() {
        let _ = write!(text, "[service.check]\n{keys}\ninterval = \"1s\"\n");
    }
    for number in 0..REAL_SERVERS {
        let (high, low) = (number / 250, number % 250 + 1);
        let _ = write!(
            text,
            "[[service.real_server]]\naddress = \"10.1.{high}.{low}\"\n\
             mac = \"52:54:00:00:{high:02x}:{low:02x}\"\n"
        );
    }
    text
}

/// What a real server answers.
fn reply(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { return None };
    let (from, to): (Ipv4Addr, Ipv4Addr) =
        (ip.header().destination_addr(), ip.header().source_addr());
    let builder = PacketBuilder::ethernet2(
        frame[..6].try_into().ok()?,
        frame[6..12].try_into().ok()?,
    )
    .ipv4(from.octets(), to.octets(), 64);
    let mut bytes = Vec::new();
    match packet.transport? {
        TransportSlice::Tcp(tcp) => {
            let (payload, ack): (&[u8], u32) = match (tcp.syn(), tcp.payload().is_empty()) {
                (true, _) => (b"", tcp.sequence_number().wrapping_add(1)),
                (false, false) => (
                    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell",
                    tcp.sequence_number().wrapping_add(tcp.payload().len() as u32),
                ),
                (false, true) => return None,
            };
            if tcp.rst() {
                return None;
            }
            let sequence = if tcp.syn() { 7000 } else { 7001 };
            let step = builder.tcp(tcp.destination_port(), tcp.source_port(), sequence, 64_240);
            let step = step.ack(ack);
            let step = if tcp.syn() { step.syn() } else { step.psh() };
            step.write_to_vec(&mut bytes, payload).ok()?;
        }
        TransportSlice::Icmpv4(icmp) => {
            let etherparse::Icmpv4Type::EchoRequest(echo) = icmp.icmp_type() else { return None };
            builder
                .icmpv4_echo_reply(echo.id, echo.seq)
                .write_to_vec(&mut bytes, icmp.payload())
                .ok()?;
        }
        _ => return None,
    }
    Some(bytes)
}

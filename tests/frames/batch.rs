//! A burst judged in stages is judged as its frames would be one by one: the same verdicts, the
//! same bytes, the same state afterwards.

use std::time::Duration;

use vipr::director::{Action, Verdict};
use vipr::wire::{Frame, MacAddr};

use crate::harness::frames::*;
use crate::harness::*;
use crate::random::Random;

/// TCP with persistence to real servers of known MAC, UDP to one whose MAC has to be found, and
/// room for fewer connections than there are flows.
fn configuration() -> String {
    let web = web().replace("scheduler = \"wrr\"", "scheduler = \"wrr\"\npersistence = {}");
    format!(
        r#"
[router]
connections_max = 700
{web}
[[service]]
name = "dns"
vip = "192.0.2.10"
protocol = "udp"
ports = 53
scheduler = "lc"
real_server = [{{ name = "rs4", address = "10.0.0.14", segment = "back" }}]
"#
    )
}

/// Two directors with the same past: one is given frames one by one, the other in batches.
struct Pair {
    single: World,
    batched: World,
}

impl Pair {
    fn new() -> Pair {
        Pair { single: World::new(&configuration()), batched: World::new(&configuration()) }
    }

    /// Offers a burst to both.
    fn offer(&mut self, segment: &str, burst: &[Vec<u8>]) {
        let singly = self.offer_singly(segment, burst);
        let batched = self.offer_batched(segment, burst);
        for (index, (single, batched)) in singly.iter().zip(&batched).enumerate() {
            assert_eq!(single, batched, "frame {index} of {segment}: {:02x?}", burst[index]);
        }
        assert_eq!(singly.len(), batched.len());
        self.compare();
    }

    fn offer_singly(&mut self, segment: &str, burst: &[Vec<u8>]) -> Vec<(Verdict, Vec<u8>)> {
        let World { director, now, .. } = &mut self.single;
        let ingress = self.batched.segment(segment);
        burst
            .iter()
            .map(|frame| {
                let mut bytes = frame.clone();
                let verdict = director.handle_frame(*now, ingress, &mut Frame::plain(&mut bytes));
                (verdict, bytes)
            })
            .collect()
    }

    fn offer_batched(&mut self, segment: &str, burst: &[Vec<u8>]) -> Vec<(Verdict, Vec<u8>)> {
        let ingress = self.batched.segment(segment);
        let World { director, now, .. } = &mut self.batched;
        let (mut frames, mut verdicts) = (burst.to_vec(), Vec::new());
        director.handle_batch(*now, ingress, &mut frames[..], |index, verdict, _| {
            assert_eq!(index, verdicts.len(), "each frame is told of once, in order");
            verdicts.push(verdict);
        });
        verdicts.into_iter().zip(frames).collect()
    }

    fn advance(&mut self, time: Duration) {
        self.single.advance(time);
        self.batched.advance(time);
        self.compare();
    }

    /// What they have sent and told, and what they count and know.
    fn compare(&mut self) {
        self.advance_nothing();
        assert_eq!(self.single.take_sent(), self.batched.take_sent());
        assert_eq!(self.single.take_events(), self.batched.take_events());
        assert_eq!(self.single.director.counters(), self.batched.director.counters());
    }

    /// Drains both.
    fn advance_nothing(&mut self) {
        for world in [&mut self.single, &mut self.batched] {
            world.drain();
        }
    }
}

/// A frame of each kind the tests know, of this flow.
fn kinds(flow: u16) -> Vec<Vec<u8>> {
    let port = 20_000 + flow;
    let mut frames: Vec<Vec<u8>> =
        ["S", "A", "PA", "FA", "R", "SA", "SR", ""].map(|flags| tcp(port, flags).bytes()).into();
    let quoted = ip_payload_of_reply(port);
    frames.extend([
        udp(port, 53, b"query"),
        udp(port, 54, b"nobody's"),
        ping(VIP, b"are you there"),
        ping(RS1, b"not for us"),
        from_client().fragment(flow, 0, true).udp(port, 53, &[7; 64]),
        ipv4(17, Some((flow, 72, false)), &[7; 32]),
        ipv4(132, None, &[0; 32]),
        ipv4(47, None, &[0; 32]),
        icmp_error(3, 4, [0, 0, 5, 0], &quoted),
        arp_request(CLIENT_MAC, CLIENT, VIP),
        arp_request(CLIENT_MAC, CLIENT, RS1),
        arp_reply(RS1_FRONT_MAC, VIP, FRONT_MAC, FRONT_DIP),
        arp_reply(MacAddr([0x52, 0x54, 0, 0, 0, 0x14]), [10, 0, 0, 14], BACK_MAC, BACK_DIP),
        with_macs(&tcp(port, "A").bytes(), FRONT_MAC, RS1_MAC),
        with_macs(&tcp(port, "A").bytes(), FRONT_MAC, FRONT_MAC),
        with_macs(&tcp(port, "A").bytes(), RS1_MAC, CLIENT_MAC),
        with_macs(&tcp(port, "A").bytes(), MacAddr::BROADCAST, CLIENT_MAC),
        from_client().other(0x86dd),
        from_client().other(0x8100),
        Vec::new(),
    ]);
    frames
}

/// The start of what a real server answers on this port.
fn ip_payload_of_reply(port: u16) -> Vec<u8> {
    let reply = FrameBuilder::new((FRONT_MAC, VIP), (CLIENT_MAC, CLIENT)).tcp(80, port, "SA", &[]);
    reply[14..42].to_vec()
}

#[test]
fn every_kind_of_frame_fares_the_same_in_a_batch() {
    let mut pair = Pair::new();
    // Enough connections for the stages to have their part.
    for first in (0..320).step_by(64) {
        let opens: Vec<Vec<u8>> =
            (first..first + 64).map(|flow| tcp(20_000 + flow, "S").bytes()).collect();
        pair.offer("front", &opens);
    }
    let forwarded = |pair: &Pair| pair.batched.director.counters().forwarded;
    assert_eq!(forwarded(&pair), 320);
    for flow in [0, 3, 400] {
        for segment in ["front", "back"] {
            pair.offer(segment, &kinds(flow));
            for frame in kinds(flow) {
                pair.offer(segment, &[frame]);
            }
        }
        pair.advance(Duration::from_secs(1));
    }
    assert!(forwarded(&pair) > 330, "{}", forwarded(&pair));
}

#[test]
fn a_batch_that_opens_closes_and_opens_the_same_connection_goes_by_the_order_of_its_frames() {
    let mut pair = Pair::new();
    let opens: Vec<Vec<u8>> = (0..300).map(|flow| tcp(20_000 + flow, "S").bytes()).collect();
    pair.offer("front", &opens);
    // The look-up of the first stage is of a connection that is there no more, or not yet.
    let story = ["A", "S", "A", "R", "S", "A", "FA", "S", "R", "R", "S"];
    let burst: Vec<Vec<u8>> = [9, 900]
        .into_iter()
        .flat_map(|flow| story.map(|flags| tcp(20_000 + flow, flags).bytes()))
        .collect();
    pair.offer("front", &burst);
    let (verdict, _) = pair.batched.offer("front", &tcp(20_900, "A").bytes());
    assert!(matches!(verdict.action, Action::Forward { .. }), "{verdict:?}");
}

#[test]
fn random_bursts_of_all_sorts_hostile_ones_included_fare_the_same() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut pair = Pair::new();
        for _ in 0..60 {
            let segment = if random.per_mille(850) { "front" } else { "back" };
            // Longer than a burst of the shell's, too.
            let len = [1, 2, 7, 64, 65, 130][random.below(6) as usize];
            let burst: Vec<Vec<u8>> = (0..len).map(|_| any_frame(&mut random)).collect();
            pair.offer(segment, &burst);
            pair.advance(Duration::from_millis(random.below(3_000)));
        }
        let counters = pair.batched.director.counters();
        assert!(counters.forwarded > 100 && counters.dropped() > 100, "seed {seed}: {counters:?}");
    }
}

/// Mostly openings and data of some flows, now and then another kind, or what is left of one
/// after a few blows.
fn any_frame(random: &mut Random) -> Vec<u8> {
    let flow = random.below(900) as u16;
    let mut frame = match random.below(10) {
        0..5 => tcp(20_000 + flow, "S").bytes(),
        5..7 => tcp(20_000 + flow, "PA").bytes(),
        _ => {
            let mut all = kinds(flow);
            all.swap_remove(random.below(all.len() as u64) as usize)
        }
    };
    if random.per_mille(250) {
        for _ in 0..=random.below(4) {
            if !frame.is_empty() {
                let at = random.below(frame.len() as u64) as usize;
                frame[at] = random.next() as u8;
            }
        }
    }
    if random.per_mille(100) {
        frame.truncate(random.below(frame.len() as u64 + 1) as usize);
    }
    frame
}

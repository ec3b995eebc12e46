//! Interfaces of the host in place of TAPs and bridges, and beside them what the kernel does alone.

use std::cell::RefCell;
use std::fs;
use std::process::Command;
use std::rc::Rc;

use vipr::shell::devices::Devices;

use crate::support::Scale;
use crate::support::contender::Contender;
use crate::support::frames::{Kind, Workload};
use crate::support::place::{self, Cores};
use crate::support::router::{Router, Setup};
use crate::support::session::{Lane, Series, Session};
use crate::support::table::{Bound, Row, nanos};
use crate::support::taps::Taps;

const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// vipr on TAPs and bridges, bridged frames passing the firewall or not.
struct Firewalled {
    router: Rc<RefCell<Box<Router<Taps>>>>,
    on: bool,
}

impl Contender for Firewalled {
    fn name(&self) -> String {
        format!("TAP + bridge, bridge-nf {}", if self.on { "on" } else { "off" })
    }

    fn prepare(&mut self) {
        // Where the module is not there, it costs nothing either.
        let _ = fs::write(BRIDGE_NETFILTER, if self.on { "1" } else { "0" });
        self.router.borrow_mut().prepare();
    }

    fn forward(&mut self, frames: u64) {
        self.router.borrow_mut().forward(frames);
    }
}

/// A rule of nftables that rewrites one MAC and forwards: no balancing at all, and all of it on the
/// sender's time.
struct KernelForward;

impl Contender for KernelForward {
    fn name(&self) -> String {
        "nftables fwd".to_owned()
    }

    fn forward(&mut self, _frames: u64) {}
}

/// Two cables: the inner ends are the director's.
fn cables(prefix: &str) -> [String; 4] {
    let [oa, ia, ob, ib] = ["oa", "ia", "ob", "ib"].map(|end| format!("{prefix}-{end}"));
    place::veth(&oa, &ia);
    place::veth(&ob, &ib);
    [oa, ia, ib, ob]
}

fn direct(attach: &str, scale: Scale, [_, front, back, _]: &[String; 4]) -> Box<dyn Contender> {
    let lines = |interface: &str| format!("attach = \"{attach}\"\ninterface = \"{interface}\"");
    let setup = Setup {
        front: lines(front),
        back: lines(back),
        ..Setup::with_connections(scale.few).named(attach)
    };
    Router::ready(&setup, Devices)
}

/// Whether nftables does what the contender needs.
fn kernel_forwards(from: &str, to: &str) -> bool {
    let rule = format!(
        "add table netdev vb; \
         add chain netdev vb c {{ type filter hook ingress device {from} priority 0; }}; \
         add rule netdev vb c ether daddr set 52:54:00:00:00:11 fwd to {to}"
    );
    Command::new("nft").arg(rule).status().is_ok_and(|status| status.success())
}

/// `attach = "packet"` and `"xdp"`.
pub fn run(scale: Scale, cores: Cores) -> Vec<Row> {
    let taps = Taps::bridged("va");
    let tapped = Setup::with_connections(scale.few);
    let router = Rc::new(RefCell::new(Router::ready(&tapped, taps.clone())));
    let (packet, xdp, kernel) = (cables("vp"), cables("vx"), cables("vk"));
    let firewalled =
        |on| -> Box<dyn Contender> { Box::new(Firewalled { router: Rc::clone(&router), on }) };
    let mut contenders: Vec<Box<dyn Contender>> = vec![
        firewalled(true),
        firewalled(false),
        direct("packet", scale, &packet),
        direct("xdp", scale, &xdp),
    ];
    let ways = |ends: &[String; 4]| (ends[0].clone(), ends[3].clone());
    let bridged = (taps.entrance.clone(), taps.exit.clone());
    let mut places = vec![bridged.clone(), bridged, ways(&packet), ways(&xdp)];
    if kernel_forwards(&kernel[1], &kernel[2]) {
        contenders.push(Box::new(KernelForward));
        places.push(ways(&kernel));
    } else {
        println!("| SKIPPED: nftables on this machine does not forward at the ingress | | | | | |");
    }
    let workload = Workload::of(Kind::Established { connections: scale.few, services: 1 }, 64);
    let lanes = places.into_iter().enumerate().map(|(contender, (entrance, exit))| Lane {
        contender,
        workload,
        entrance,
        exit,
    });
    let series = Session { cores, contenders, lanes: lanes.collect() }.run(scale.rounds);
    let [on, off, packet, xdp, ..] = &series[..] else { unreachable!() };
    let row = |what: &str, this, floor, must, aim| Row {
        what: what.to_owned(),
        must: Bound::AtLeast(must),
        aim: Bound::AtLeast(aim),
        measured: Series::speed_against(this, floor),
        note: nanos(&[floor, this]),
    };
    let mut rows = vec![
        row("attach = \"packet\" against TAP + bridge, bridge-nf on", packet, on, 1.8, 2.2),
        row("the same, bridge-nf off", packet, off, 1.5, 1.8),
        row("attach = \"xdp\" against TAP + bridge, bridge-nf on", xdp, on, 2.5, 3.2),
        row("the same, bridge-nf off", xdp, off, 2.0, 2.6),
        Row::told(
            "packet, the sender's part included, bridge-nf off",
            packet.path_speed_against(off),
            "",
        ),
        Row::told(
            "xdp, the sender's part included, bridge-nf off",
            xdp.path_speed_against(off),
            "",
        ),
    ];
    if let Some(kernel) = series.get(4) {
        rows.push(Row {
            what: "whole path, xdp, against nftables that rewrites one MAC and forwards".to_owned(),
            must: Bound::AtLeast(0.60),
            aim: Bound::AtLeast(0.90),
            measured: xdp.path_speed_against(kernel),
            note: String::new(),
        });
        rows.push(Row::told("the same, packet", packet.path_speed_against(kernel), ""));
    }
    rows
}

//! A trace through vipr's core.

use std::fmt::Write as _;
use std::time::Duration;

use vipr::director::{Action, connections::ConnectionState};
use vipr::wire::Frame;

use super::harness::frames6::segments6;
use super::harness::{World, snapshot};
use super::record::{Check, Record};
use super::scenarios::{Changes, Scenario};
use super::trace::{FIN_WAIT_SECONDS, Op, PAUSE, PORT, trace};

/// Between two packets: all of a trace passes before the first timeout does.
const INTERVAL: Duration = Duration::from_micros(100);

/// Where vipr differs from what the kernel did.
pub fn compare(scenario: &Scenario, kernel: &Record) -> Vec<String> {
    record(scenario).differences(kernel)
}

fn record(scenario: &Scenario) -> Record {
    let mut members: Vec<(u8, u32)> = (0..).zip(scenario.weights.iter().copied()).collect();
    let mut world = World::new(&configuration(scenario, &members));
    let front = world.segment("front");
    let mut record = Record::new("vipr".to_owned());
    for op in trace(scenario) {
        match op {
            Op::Packet(packet) => {
                world.advance(INTERVAL);
                let mut frame = packet.frame(scenario.family, 1);
                let frame = &mut Frame::plain(&mut frame);
                let verdict = world.director.handle_frame(world.now, front, frame);
                while world.director.poll_transmit().is_some() {}
                let forwarded = matches!(verdict.action, Action::Forward { .. });
                let to = verdict.real_server.filter(|_| forwarded);
                let name = to.and_then(|to| world.director.real_server_name(to));
                record.push(name.map(|name| name[2..].parse().expect("rsN")));
                continue;
            }
            Op::Check => {
                record.check(&check(&mut world, &members));
                continue;
            }
            Op::Pause => {
                world.advance(PAUSE);
                continue;
            }
            Op::Weight { server, weight } => {
                let changed = members.iter_mut().find(|(member, _)| *member == server);
                changed.expect("it is a member").1 = weight;
            }
            Op::Remove { server } => members.retain(|(member, _)| *member != server),
            // The kernel's list begins with the newest.
            Op::Add { server, weight } => members.insert(0, (server, weight)),
        }
        let next = snapshot(&configuration(scenario, &members));
        world.director.apply(world.now, next);
    }
    record
}

fn configuration(scenario: &Scenario, members: &[(u8, u32)]) -> String {
    let mut toml = segments6();
    if scenario.pauses {
        let _ = writeln!(toml, "[timeouts]\ntcp_fin_wait = {FIN_WAIT_SECONDS}");
    }
    for number in 0..scenario.vips {
        let protocol = if scenario.udp { "udp" } else { "tcp" };
        let _ = write!(
            toml,
            "\n[[service]]\nname = \"{number}\"\nvip = \"{}\"\nprotocol = \"{protocol}\"\n\
             ports = {PORT}\nscheduler = \"{}\"\n",
            scenario.family.vip(number),
            scenario.scheduler
        );
        if let Some((options, _)) = scenario.options {
            let _ = writeln!(toml, "scheduler_options = {options}");
        }
        if let Some((timeout, netmask)) = scenario.persistence {
            let _ = writeln!(toml, "persistence = {{ timeout = {timeout}, netmask = {netmask} }}");
        }
        if scenario.changes == Changes::Members {
            toml += "on_removal = \"reset\"\n";
        }
        for (server, weight) in members {
            let address = scenario.family.rip(*server);
            let mac = format!("52:54:00:00:00:{server:02x}");
            let _ = write!(
                toml,
                "[[service.real_server]]\nname = \"rs{server}\"\naddress = \"{address}\"\n\
                 mac = \"{mac}\"\nweight = {weight}\nupper_threshold = {}\n\
                 lower_threshold = {}\n",
                scenario.upper_threshold(*server),
                scenario.lower_threshold(*server)
            );
        }
    }
    toml
}

fn check(world: &mut World, members: &[(u8, u32)]) -> Check {
    let mut check = Check::default();
    for service in world.status().services {
        let number: u8 = service.name.parse().expect("a service's number");
        for found in service.real_servers {
            let server = found.name[2..].parse().expect("rsN");
            if members.iter().any(|(member, _)| *member == server) {
                check.counts.insert((number, server), (found.active, found.inactive));
            }
        }
    }
    for found in world.connections() {
        let server: u8 = found.real_server[2..].parse().expect("rsN");
        if found.state != ConnectionState::Template
            && members.iter().any(|(member, _)| *member == server)
        {
            let (client, port, vip) = (found.client, found.client_port, found.vip);
            let state = found.state.name();
            check.connections.push(format!("{client}:{port} {vip} {server} {state}"));
        }
    }
    check
}

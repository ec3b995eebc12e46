//! `vm/lab.toml`: the machines, the segments and their faults; and the director's configuration
//! that follows from it.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::faults::Faults;
use crate::build::{Error, Result};

/// Where a director on the host has its front, in the lab's folder.
pub const HOST_FRONT: &str = "vipr.front";

/// Real servers have the addresses and MACs of their number: RIP .11 to .40.
pub const REAL_SERVERS_MAX: usize = 30;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    #[serde(default = "memory")]
    pub memory_mib: u32,
    pub service: Service,
    pub real_server: Vec<RealServer>,
    #[serde(default)]
    pub director: Director,
    #[serde(default)]
    pub segment: BTreeMap<String, Segment>,
    #[serde(skip)]
    pub topology: Topology,
    #[serde(skip)]
    pub attach: Attach,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    pub vip: Ipv4Addr,
    pub scheduler: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServer {
    pub weight: u32,
    #[serde(default)]
    pub hide: Hide,
}

/// How a real server keeps from answering ARP for the VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hide {
    #[default]
    Sysctl,
    Arptables,
    Nft,
    /// It does not.
    None,
}

/// What the director's configuration says beyond what follows from the rest: the tables are put
/// into it as they are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Director {
    pub router: Table,
    pub segment: BTreeMap<String, Table>,
    pub service: Table,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segment {
    pub faults: Faults,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// Clients on one segment, requests to real servers by another.
    #[default]
    TwoSegments,
    /// Everything on one segment.
    OneArm,
}

/// How a director that is a machine has its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// By a TAP on a bridge, of which the card is a port.
    #[default]
    Tap,
    /// By the card itself.
    Packet,
    Xdp,
}

fn memory() -> u32 {
    128
}

impl Description {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Description> {
        let text = fs::read_to_string(path)
            .map_err(|error| Error(format!("{}: cannot be read: {error}", path.display())))?;
        Description::parse(&text).map_err(|error| Error(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> std::result::Result<Description, String> {
        let mut description: Description =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        description.check()?;
        description.topology = Topology::default();
        Ok(description)
    }

    /// Another number of real servers: the last is repeated, or those beyond are left out.
    pub fn set_real_servers(&mut self, count: usize) -> std::result::Result<(), String> {
        let last = self.real_server.last().cloned().ok_or("no real server to repeat")?;
        self.real_server.resize(count, last);
        self.check()
    }

    fn check(&self) -> std::result::Result<(), String> {
        let count = self.real_server.len();
        if !(1..=REAL_SERVERS_MAX).contains(&count) {
            return Err(format!("{count} real servers: expected 1 to {REAL_SERVERS_MAX}"));
        }
        if !(96..=4096).contains(&self.memory_mib) {
            return Err(format!("memory_mib = {}: expected 96 to 4096", self.memory_mib));
        }
        for (name, segment) in &self.segment {
            if !["front", "back"].contains(&name.as_str()) {
                return Err(format!("segment {name}: there are front and back"));
            }
            if let Some(mistake) = segment.faults.mistake() {
                return Err(format!("segment {name}: {mistake}"));
            }
        }
        Ok(())
    }

    pub fn segments(&self) -> &'static [&'static str] {
        match self.topology {
            Topology::TwoSegments => &["front", "back"],
            Topology::OneArm => &["front"],
        }
    }

    pub fn faults(&self, segment: &str) -> Faults {
        self.segment.get(segment).map(|segment| segment.faults.clone()).unwrap_or_default()
    }

    /// The address by which the director knows real server `number` (from 1).
    pub fn rip(&self, number: usize) -> String {
        match self.topology {
            Topology::TwoSegments => format!("10.0.0.{}", 10 + number),
            Topology::OneArm => front_address(number),
        }
    }

    /// The configuration of a director that is a machine.
    pub fn configuration(&self) -> String {
        let card =
            |attach, index| vec![text("attach", attach), text("interface", &format!("eth{index}"))];
        self.configuration_with(&[], |index, name| match self.attach {
            Attach::Tap => vec![
                text("tap", &format!("vipr-{name}")),
                text("bridge", &format!("br-{name}")),
                text("uplink", &director_card(index)),
            ],
            Attach::Packet => card("packet", index),
            Attach::Xdp => card("xdp", index),
        })
    }

    /// The same of one that runs on the host: on the front it is the machines' switch itself, by a
    /// socket that they connect to; on the back it connects to the lab's switch. So it does both.
    pub fn configuration_on_host(&self) -> String {
        let router = [text("control_socket", "director.control")];
        self.configuration_with(&router, |_, name| {
            let socket = match name {
                "front" => text("socket", HOST_FRONT),
                _ => ("connect".to_owned(), vec![format!("{name}.director")].into()),
            };
            vec![text("attach", "qemu"), socket]
        })
    }

    fn configuration_with(
        &self,
        router_has: &[(String, Value)],
        attach: impl Fn(usize, &str) -> Vec<(String, Value)>,
    ) -> String {
        let mut root = Table::new();
        let mut router = Table::from_iter([text("name", "lab")]);
        router.extend(router_has.iter().cloned());
        router.extend(self.director.router.clone());
        root.insert("router".to_owned(), Value::Table(router));
        let mut segments = Table::new();
        for (index, name) in self.segments().iter().enumerate() {
            let role = match (self.topology, *name) {
                (Topology::OneArm, _) => "both",
                (Topology::TwoSegments, "front") => "vip",
                (Topology::TwoSegments, _) => "backend",
            };
            let address = if *name == "front" { "192.0.2.2/24" } else { "10.0.0.1/24" };
            let mut segment = Table::from_iter([
                text("role", role),
                text("mac", &director_mac(index)),
                ("address".to_owned(), Value::Array(vec![address.into()])),
            ]);
            segment.extend(attach(index, name));
            segment.extend(self.director.segment.get(*name).cloned().unwrap_or_default());
            segments.insert((*name).to_owned(), Value::Table(segment));
        }
        root.insert("segment".to_owned(), Value::Table(segments));
        let mut service = Table::from_iter([
            text("name", "web"),
            text("vip", &self.service.vip.to_string()),
            text("protocol", "tcp"),
            ("ports".to_owned(), Value::Integer(80)),
            text("scheduler", &self.service.scheduler),
        ]);
        service.extend(self.director.service.clone());
        let servers = self.real_server.iter().zip(1..).map(|(server, number)| {
            let mut table = Table::from_iter([
                text("name", &format!("rs{number}")),
                text("address", &self.rip(number)),
                ("weight".to_owned(), Value::Integer(i64::from(server.weight))),
            ]);
            if self.topology == Topology::TwoSegments {
                let cards = vec![front_mac(number).into()];
                table.insert("vip_mac".to_owned(), Value::Array(cards));
            }
            Value::Table(table)
        });
        service.insert("real_server".to_owned(), Value::Array(servers.collect()));
        root.insert("service".to_owned(), Value::Array(vec![Value::Table(service)]));
        root.to_string()
    }
}

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), Value::String(value.to_owned()))
}

/// MAC and address of things, by what and which they are.
pub fn director_mac(segment: usize) -> String {
    format!("02:00:00:00:{:02x}:01", segment + 1)
}
pub fn director_card(segment: usize) -> String {
    format!("52:54:00:00:fe:{:02x}", segment + 1)
}
pub const CLIENT_MAC: &str = "52:54:00:00:00:64";
pub const CLIENT_ADDRESS: &str = "192.0.2.100";
pub fn front_mac(number: usize) -> String {
    format!("52:54:00:00:01:{:02x}", 0x10 + number)
}
pub fn back_mac(number: usize) -> String {
    format!("52:54:00:00:00:{:02x}", 0x10 + number)
}
pub fn front_address(number: usize) -> String {
    format!("192.0.2.{}", 10 + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[service]
vip = "192.0.2.10"
scheduler = "wrr"
[[real_server]]
weight = 3
[[real_server]]
weight = 1
hide = "nft"
[segment.front.faults]
loss = 0.5
cut = ["rs1"]
[director.segment.front]
mtu = 1400
"#;

    #[test]
    fn the_directors_configuration_follows_from_the_description() {
        let mut description = Description::parse(TEXT).unwrap();
        let two: Table = description.configuration().parse().unwrap();
        assert_eq!(two["segment"]["front"]["role"].as_str(), Some("vip"));
        assert_eq!(two["segment"]["front"]["mtu"].as_integer(), Some(1400));
        assert_eq!(two["service"][0]["real_server"][0]["address"].as_str(), Some("10.0.0.11"));
        assert_eq!(two["service"][0]["real_server"][1]["weight"].as_integer(), Some(1));
        let host: Table = description.configuration_on_host().parse().unwrap();
        let (front, back) = (&host["segment"]["front"], &host["segment"]["back"]);
        assert_eq!(front["attach"].as_str(), Some("qemu"));
        assert_eq!(front["socket"].as_str(), Some(HOST_FRONT));
        assert_eq!(back["connect"][0].as_str(), Some("back.director"));
        assert!(front.get("tap").is_none() && back.get("uplink").is_none());
        assert_eq!(front["mac"], two["segment"]["front"]["mac"]);
        description.attach = Attach::Packet;
        let cards: Table = description.configuration().parse().unwrap();
        let back = &cards["segment"]["back"];
        assert_eq!(back["attach"].as_str(), Some("packet"));
        assert_eq!(back["interface"].as_str(), Some("eth1"));
        assert!(back.get("tap").is_none() && back.get("bridge").is_none());
        description.topology = Topology::OneArm;
        let one: Table = description.configuration().parse().unwrap();
        assert_eq!(one["segment"]["front"]["role"].as_str(), Some("both"));
        assert!(one["segment"].get("back").is_none());
        assert_eq!(one["service"][0]["real_server"][0]["address"].as_str(), Some("192.0.2.11"));
    }

    #[test]
    fn more_real_servers_are_like_the_last_and_fewer_leave_some_out() {
        let mut description = Description::parse(TEXT).unwrap();
        description.set_real_servers(4).unwrap();
        let weights: Vec<u32> = description.real_server.iter().map(|rs| rs.weight).collect();
        assert_eq!(weights, [3, 1, 1, 1]);
        assert_eq!(description.real_server[3].hide, Hide::Nft);
        description.set_real_servers(1).unwrap();
        assert!(description.set_real_servers(0).is_err());
        let mut description = Description::parse(TEXT).unwrap();
        assert!(description.set_real_servers(REAL_SERVERS_MAX + 1).is_err());
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let rows = [
            ("scheduler", "shceduler", "shceduler"),
            ("loss = 0.5", "loss = 5.0", "expected a share from 0 to 1"),
            ("segment.front.faults", "segment.middle.faults", "there are front and back"),
            ("hide = \"nft\"", "hide = \"ebtables\"", "ebtables"),
            ("[service]\n", "memory_mib = 8\n[service]\n", "memory_mib"),
        ];
        for (from, to, expected) in rows {
            let error = Description::parse(&TEXT.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
        let error = Description::parse(&TEXT.replace("weight = 3", "weight = \"3\"")).unwrap_err();
        assert!(error.contains("line 6"), "{error}");
    }

    #[test]
    fn the_file_beside_it_is_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab.toml");
        Description::read(&path).unwrap();
    }
}

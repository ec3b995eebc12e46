//! The stories: each shows one thing about direct routing, and knows how it should look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use toml::Table;

use super::cluster::{Cluster, DirectorKind, outcome_lines, patience};
use super::description::{
    Attach, Description, Hide, Topology, director_card, director_mac, front_mac,
};
use super::tally::{self, Mac};
use crate::build::{Error, Result};

/// Requests of a story, unless it says otherwise.
const REQUESTS: usize = 60;
/// The client's answers on a line of the screen.
const ANSWERS_A_LINE: usize = 20;
/// The bytes of `/slow`, which nginx sends at 128 KiB a second.
const SLOW_BYTES: usize = 4 << 20;

/// A lesson with its expected picture.
pub struct Story {
    pub name: &'static str,
    pub lesson: &'static str,
    pub kind: DirectorKind,
    /// Whether the director is still there afterwards.
    pub stays: bool,
    /// What it changes in the description.
    prepare: fn(&mut Description),
    tell: fn(&mut Teller<'_>) -> Result<()>,
}

pub const STORIES: [Story; 14] = [
    Story {
        name: "healthy",
        lesson: "one MAC for the VIP, the weights obeyed, and no reply by way of the director",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |_| {},
        tell: healthy,
    },
    Story {
        name: "arp-problem",
        lesson: "real servers that answer ARP for the VIP, and a director that does not defend it",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |description| {
            hide_by(description, Hide::None);
            set_front(description, "defend", "off");
        },
        tell: arp_problem,
    },
    Story {
        name: "arptables",
        lesson: "the VIP hidden by arptables, as Red Hat has it",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |description| hide_by(description, Hide::Arptables),
        tell: healthy,
    },
    Story {
        name: "sysctl",
        lesson: "the VIP hidden by arp_ignore and arp_announce",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |description| hide_by(description, Hide::Sysctl),
        tell: healthy,
    },
    Story {
        name: "nft",
        lesson: "the VIP hidden by a table of nftables",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |description| hide_by(description, Hide::Nft),
        tell: healthy,
    },
    Story {
        name: "real-server-dies",
        lesson: "a real server falls silent, gets no new connections, and comes back",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |_| {},
        tell: real_server_dies,
    },
    Story {
        name: "reload",
        lesson: "weights change in the file while a download runs, and nothing breaks",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |_| {},
        tell: reload,
    },
    Story {
        name: "drain",
        lesson: "a real server is drained: its connections finish, new ones go elsewhere",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |_| {},
        tell: drain,
    },
    Story {
        name: "one-arm",
        lesson: "everything on one segment",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |description| description.topology = Topology::OneArm,
        tell: healthy,
    },
    Story {
        name: "packet",
        lesson: "the director on its cards themselves, with neither TAP nor bridge",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |description| description.attach = Attach::Packet,
        tell: healthy,
    },
    Story {
        name: "xdp",
        lesson: "the same by XDP",
        kind: DirectorKind::Vipr,
        stays: true,
        prepare: |description| description.attach = Attach::Xdp,
        tell: healthy,
    },
    Story {
        name: "host",
        lesson: "the director is a process of the host, and the switch of its machines",
        kind: DirectorKind::Host,
        stays: true,
        prepare: |_| {},
        tell: healthy,
    },
    Story {
        name: "ipvs",
        lesson: "the same cluster with the kernel's IPVS as its director",
        kind: DirectorKind::Ipvs,
        stays: true,
        prepare: |_| {},
        tell: healthy,
    },
    Story {
        name: "power-button",
        lesson: "the power button ends the machine with vipr alone in good order",
        kind: DirectorKind::Vipr,
        stays: false,
        prepare: |_| {},
        tell: power_button,
    },
];

impl Story {
    pub fn find(name: &str) -> Result<&'static Story> {
        STORIES.iter().find(|story| story.name == name).ok_or_else(|| {
            let names: Vec<&str> = STORIES.iter().map(|story| story.name).collect();
            Error(format!("there is no story {name:?}; there are: {}", names.join(", ")))
        })
    }

    /// The director it is told with, where the person wants it on the host.
    pub fn kind_on_host(&self) -> Result<DirectorKind> {
        match self.name {
            "ipvs" => {
                Err(Error::new("story ipvs: its director is a kernel's: without DIRECTOR=host"))
            }
            "packet" | "xdp" => Err(Error(format!(
                "story {}: its director has cards: without DIRECTOR=host",
                self.name
            ))),
            "power-button" => Err(Error::new(
                "story power-button: with DIRECTOR=host the director has no machine to press it on",
            )),
            _ => Ok(DirectorKind::Host),
        }
    }

    pub fn prepare(&self, description: &mut Description) {
        (self.prepare)(description);
    }

    /// Tells it, and says at the end whether all was as it should be.
    pub fn tell(&self, cluster: &mut Cluster) -> Result<()> {
        let mut teller = Teller { cluster, wrong: Vec::new() };
        (self.tell)(&mut teller)?;
        match teller.wrong.as_slice() {
            [] => Ok(()),
            wrong => Err(Error(format!("not as it should be: {}", wrong.join("; ")))),
        }
    }
}

fn hide_by(description: &mut Description, hide: Hide) {
    description.real_server.iter_mut().for_each(|server| server.hide = hide);
}

fn set_front(description: &mut Description, key: &str, value: &str) {
    let front: &mut Table = description.director.segment.entry("front".to_owned()).or_default();
    front.insert(key.to_owned(), value.into());
}

struct Teller<'a> {
    cluster: &'a mut Cluster,
    wrong: Vec<String>,
}

fn healthy(teller: &mut Teller<'_>) -> Result<()> {
    let answers = teller.requests(REQUESTS)?;
    teller.spread(&answers, &teller.weights());
    teller.who_answers_arp()?;
    let director = BTreeSet::from([teller.director_mac()]);
    let answerers = teller.answerers();
    teller.expect("ARP for the VIP is answered by the director alone", answerers == director);
    teller.frames(&answers);
    Ok(())
}

fn arp_problem(teller: &mut Teller<'_>) -> Result<()> {
    teller.who_answers_arp()?;
    let answerers = teller.answerers();
    teller.expect("several MAC addresses answer for the VIP", answerers.len() > 1);
    let leaking = (1..=teller.servers()).filter(|n| answerers.contains(&parse(&front_mac(*n))));
    let leaking = leaking.count();
    teller.expect("real servers are among them", leaking > 0);
    println!(
        "    Whoever answers last or first has the client's traffic, all of it, whatever the\n    \
         weights say; and when that one goes away, so does the service."
    );
    // A real server wins: what would be by chance is forced, so that it can be shown.
    let victim = front_mac(1);
    let vip = teller.vip();
    // busybox's ip cannot add neighbours.
    let script = format!("arp -i eth0 -s {vip} {victim}");
    teller.client(&script)?;
    println!("    Here the client believes rs1 ({victim}):");
    let answers = teller.requests(12)?;
    let of_one = answers.iter().all(|answer| answer == "rs1");
    teller.expect("one real server gets all requests", of_one);
    let bypassed = teller.requests_to(&parse(&director_mac(0))) == 0;
    teller.expect("the director sees none of them", bypassed);
    Ok(())
}

fn real_server_dies(teller: &mut Teller<'_>) -> Result<()> {
    println!("    rs1's cables are pulled out.");
    teller.cut(&["rs1"]);
    teller.wait_state("rs1", false)?;
    println!("    The director has noticed: {}", teller.state("rs1"));
    let answers = teller.requests(REQUESTS / 2)?;
    let mut weights = teller.weights();
    weights.insert(1, 0);
    teller.spread(&answers, &weights);
    println!("    The cables are in again.");
    teller.cut(&[]);
    teller.wait_state("rs1", true)?;
    println!("    The director has noticed: {}", teller.state("rs1"));
    let answers = teller.requests(REQUESTS)?;
    teller.spread(&answers, &teller.weights());
    Ok(())
}

fn reload(teller: &mut Teller<'_>) -> Result<()> {
    let download = teller.start_download()?;
    let mut next = teller.cluster.description.clone();
    for (server, weight) in next.real_server.iter_mut().zip([1, 1, 4]) {
        server.weight = weight;
    }
    println!("    While it runs, the weights become 1, 1, 4:");
    let news = teller.cluster.follow(next)?;
    news.iter().for_each(|line| println!("    {line}"));
    let in_force = match teller.cluster.kind {
        // The router follows its file, and may have been quicker than the question.
        DirectorKind::Host => !news.iter().any(|line| line.contains("refuses")),
        DirectorKind::Vipr | DirectorKind::Ipvs => news.iter().any(|line| line.contains("applied")),
    };
    teller.expect("the director takes it into force", in_force);
    let weights = teller.weights();
    let answers = teller.requests(REQUESTS)?;
    teller.spread(&answers, &weights);
    println!("    And a mistake in it:");
    let mut bad = teller.cluster.description.clone();
    "wrrr".clone_into(&mut bad.service.scheduler);
    let outcome = teller.cluster.push(&bad.configuration(), patience())?;
    for line in outcome_lines(&outcome) {
        println!("    {}", line.replace('\n', "\n    "));
    }
    let refused = outcome["reload"]["diagnostics"].as_str().unwrap_or_default();
    teller.expect("the mistake comes back with its place", refused.contains("vipr.toml:"));
    let answers = teller.requests(REQUESTS / 10)?;
    teller.spread(&answers, &weights);
    teller.finish_download(download)
}

fn drain(teller: &mut Teller<'_>) -> Result<()> {
    let mut download = teller.start_download()?;
    let owner = download.1.clone();
    println!("    It comes from {owner}, which is drained now:");
    // What `vipr drain web rs1` sends.
    let request =
        format!(r#"{{"command":"weight","service":"web","real_server":"{owner}","weight":0}}"#);
    let answer = teller.cluster.control(&request).unwrap_or(Value::Null);
    println!("    {}", answer["done"].as_str().unwrap_or("?"));
    teller.expect("the director agrees", answer["done"].is_string());
    let answers = teller.requests(REQUESTS / 2)?;
    let none = answers.iter().all(|answer| *answer != owner);
    teller.expect(&format!("{owner} gets no new connection"), none);
    download.1.clear();
    teller.finish_download(download)
}

fn power_button(teller: &mut Teller<'_>) -> Result<()> {
    let answers = teller.requests(6)?;
    teller.spread(&answers, &teller.weights());
    println!("    The power button of the director's machine is pressed.");
    let ended = teller.cluster.power_off_director()?;
    teller.expect("the router ends, and the machine after it", ended);
    Ok(())
}

/// A download under way, and who sends it.
type Download = (super::agent::Job, String);

impl Teller<'_> {
    fn vip(&self) -> String {
        self.cluster.description.service.vip.to_string()
    }

    fn servers(&self) -> usize {
        self.cluster.description.real_server.len()
    }

    fn weights(&self) -> BTreeMap<usize, u32> {
        let servers = self.cluster.description.real_server.iter();
        (1..).zip(servers.map(|server| server.weight)).collect()
    }

    /// The MAC that the director has the VIP by.
    fn director_mac(&self) -> Mac {
        parse(&match self.cluster.kind {
            DirectorKind::Vipr | DirectorKind::Host => director_mac(0),
            DirectorKind::Ipvs => director_card(0),
        })
    }

    fn client(&mut self, script: &str) -> Result<Vec<String>> {
        self.cluster.client.start(script)?.finish(patience())
    }

    /// Sends requests, one after the other, each by a connection of its own; shows the answers as
    /// they come, and gives them.
    fn requests(&mut self, count: usize) -> Result<Vec<String>> {
        let vip = self.vip();
        println!("    client# wget -O - http://{vip}/    ({count} times)");
        self.cluster.hub.forget();
        // busybox's own time limit crashes it.
        let script = format!(
            "for i in $(seq {count}); do timeout 20 wget -q -O - http://{vip}/ || echo failed; done"
        );
        let mut job = self.cluster.client.start(&script)?;
        let end = Instant::now() + patience();
        let mut line = "   ".to_owned();
        while let Ok(answer) = job.next(end)? {
            line.push(' ');
            line.push_str(&answer);
            if job.lines.len().is_multiple_of(ANSWERS_A_LINE) {
                println!("{line}");
                "   ".clone_into(&mut line);
            }
        }
        if !line.trim().is_empty() {
            println!("{line}");
        }
        let complete = job.lines.len() == count && !job.lines.iter().any(|l| l == "failed");
        self.expect(&format!("all {count} requests are answered"), complete);
        Ok(job.lines)
    }

    /// Checks where requests went against the weights.
    fn spread(&mut self, answers: &[String], weights: &BTreeMap<usize, u32>) {
        let total: u32 = weights.values().sum();
        for (number, weight) in weights {
            let name = format!("rs{number}");
            let count = answers.iter().filter(|answer| **answer == name).count();
            let expected = answers.len() * *weight as usize / total.max(1) as usize;
            let what = format!(
                "{name} answered {count:2} of {} (weight {weight}: {expected} expected)",
                answers.len()
            );
            // Between two runs of the same rounds a round may be cut in two.
            self.expect(&what, count.abs_diff(expected) <= 2);
        }
    }

    /// Asks for the VIP by ARP a few times, with a neighbour cache that has forgotten it.
    fn who_answers_arp(&mut self) -> Result<()> {
        let vip = self.vip();
        println!("    client# arping {vip}");
        let script = format!(
            "ip neigh flush dev eth0; arping -c 3 -w 4 -I eth0 {vip} || true; ip neigh flush dev \
             eth0"
        );
        for line in self.client(&script)? {
            println!("      {line}");
        }
        Ok(())
    }

    fn answerers(&self) -> BTreeSet<Mac> {
        let answerers =
            self.cluster.hub.tally().arp_answerers(self.cluster.description.service.vip);
        let listed: Vec<String> = answerers.iter().map(tally::text).collect();
        println!("    ARP for the VIP is answered by: {}", listed.join(" "));
        answerers
    }

    fn requests_to(&self, mac: &Mac) -> u64 {
        let tally = self.cluster.hub.tally();
        let requests = tally.requests(self.cluster.description.service.vip);
        requests.iter().filter(|((_, to), _)| to == mac).map(|(_, count)| count).sum()
    }

    /// Where requests and replies passed since the requests were sent.
    fn frames(&mut self, answers: &[String]) {
        let vip = self.cluster.description.service.vip;
        let tally = self.cluster.hub.tally();
        let mac = self.director_mac();
        let of = |frames: &BTreeMap<(String, Mac), u64>, from: &str| -> u64 {
            frames.iter().filter(|((name, _), _)| name == from).map(|(_, count)| count).sum()
        };
        let (requests, replies) = (tally.requests(vip), tally.replies(vip));
        let (sent, forwarded) = (of(&requests, "client"), of(&requests, "director"));
        println!("    frames of requests: {sent} from the client, {forwarded} from the director");
        let to_director = self.requests_to(&mac);
        self.expect("every request goes to the director", to_director == sent && sent > 0);
        self.expect("and on from there", forwarded == sent);
        let total: u64 = replies.values().sum();
        let by_director: u64 = replies
            .iter()
            .filter(|((name, to), _)| name == "director" || *to == mac)
            .map(|(_, count)| count)
            .sum();
        for number in 1..=self.servers() {
            let name = format!("rs{number}");
            println!("    frames of replies:  {:5} straight from {name}", of(&replies, &name));
        }
        println!("    frames of replies:  {by_director:5} by way of the director");
        self.expect("no reply passes the director", by_director == 0);
        let from_servers: u64 = (1..=self.servers()).map(|n| of(&replies, &format!("rs{n}"))).sum();
        let everyone = total == from_servers && total >= answers.len() as u64;
        self.expect("every reply comes from a real server", everyone);
    }

    fn cut(&mut self, machines: &[&str]) {
        for segment in self.cluster.description.segments() {
            let mut faults = self.cluster.description.faults(segment);
            faults.cut = machines.iter().map(|name| (*name).to_owned()).collect();
            self.cluster.hub.set_faults(segment, faults);
        }
    }

    /// What the router says of a real server.
    fn state(&self, name: &str) -> String {
        let servers = self.cluster.server_status().unwrap_or_default();
        let server = servers.iter().find(|server| server["name"] == *name);
        server.map_or("it does not answer".to_owned(), |server| {
            format!("{name} is {}", server["state"].as_str().unwrap_or("?"))
        })
    }

    fn wait_state(&mut self, name: &str, up: bool) -> Result<()> {
        let (what, name) = (format!("{name} to be {}", if up { "up" } else { "down" }), name);
        self.cluster.wait_for(&what, patience(), |cluster| {
            let servers = cluster.server_status()?;
            let server = servers.iter().find(|server| server["name"] == *name)?;
            ((server["state"] == "up") == up).then_some(())
        })
    }

    /// Starts a slow download and waits until it is under way.
    fn start_download(&mut self) -> Result<Download> {
        let vip = self.vip();
        println!("    client# wget -O - http://{vip}/slow    (4 MiB, slowly)");
        let before = self.connections();
        let script = format!("timeout 120 wget -q -O - http://{vip}/slow | wc -c");
        let job = self.cluster.client.start(&script)?;
        let owner = self.cluster.wait_for("the download to begin", patience(), |cluster| {
            let servers = cluster.server_status()?;
            let grown = servers.iter().find(|server| {
                let name = server["name"].as_str().unwrap_or_default();
                server["connections"].as_u64() > Some(before.get(name).copied().unwrap_or_default())
            })?;
            grown["name"].as_str().map(str::to_owned)
        })?;
        Ok((job, owner))
    }

    fn finish_download(&mut self, download: Download) -> Result<()> {
        let said = download.0.finish(patience() + Duration::from_secs(60))?;
        let bytes = said.first().map_or("nothing", |line| line.trim());
        self.expect(
            &format!("the download is whole ({bytes} bytes)"),
            bytes == SLOW_BYTES.to_string(),
        );
        Ok(())
    }

    /// How many connections each real server has been given.
    fn connections(&self) -> BTreeMap<String, u64> {
        let servers = self.cluster.server_status().unwrap_or_default();
        let one = |server: &Value| {
            let name = server["name"].as_str()?.to_owned();
            Some((name, server["connections"].as_u64()?))
        };
        servers.iter().filter_map(one).collect()
    }

    /// Ends a line of the picture by whether it is as it should be.
    fn expect(&mut self, what: &str, holds: bool) {
        println!("    {} {what}", if holds { "ok   " } else { "WRONG" });
        if !holds {
            self.wrong.push(what.to_owned());
        }
    }
}

fn parse(mac: &str) -> Mac {
    let mut bytes = [0; 6];
    for (byte, text) in bytes.iter_mut().zip(mac.split(':')) {
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_are_found_by_their_names() {
        for story in &STORIES {
            assert_eq!(Story::find(story.name).unwrap().lesson, story.lesson);
        }
        let error = Story::find("healty").err().unwrap().to_string();
        assert!(error.contains("healty") && error.contains("real-server-dies"), "{error}");
    }
}

//! Size, limits, and texts nobody would write.

use core::fmt::Write as _;
use core::net::Ipv4Addr;

use proptest::prelude::*;

use super::{BASE, accepted, edited, listed, refused};
use crate::config::{
    ADDRESSES_MAX, MISTAKES_LISTED_MAX, PORT_RANGES_MAX, REAL_SERVERS_MAX, SEGMENTS_MAX,
    SERVICES_MAX, TEXT_BYTES_MAX, VIP_MACS_MAX, parse,
};

const SEGMENT: &str = "[segment.lan]\nrole = \"both\"\ntap = \"vipr\"\n";

/// `services` services of `real_servers` real servers each.
fn large(services: u32, real_servers: u32) -> String {
    let address = |first: [u8; 4], index: u32| Ipv4Addr::from(u32::from_be_bytes(first) + index);
    let mut text = SEGMENT.to_owned();
    for service in 0..services {
        let vip = address([10, 0, 0, 1], service);
        let ports = "[80, \"8000-8099\"]";
        let _ = write!(text, "[[service]]\nvip = \"{vip}\"\nprotocol = \"tcp\"\nports = {ports}\n");
        for real_server in 0..real_servers {
            let rip = address([172, 16, 0, 1], real_server);
            let _ = write!(text, "[[service.real_server]]\naddress = \"{rip}\"\nweight = 3\n");
        }
    }
    text
}

#[test]
fn a_thousand_services_of_twenty_real_servers_are_read() {
    let snapshot = accepted(&large(1000, 20));
    assert_eq!(snapshot.services.len(), 1000);
    assert!(snapshot.services.iter().all(|service| service.real_servers.len() == 20));
    assert_eq!(&*snapshot.services[999].name, "10.0.3.232:80,8000-8099/tcp");
}

#[test]
fn limits_are_reached_but_not_passed() {
    let segments = |count: usize| {
        let segment = |i| format!("[segment.s{i}]\nrole = \"both\"\ntap = \"t{i}\"\n");
        (0..count).map(segment).collect::<String>()
    };
    let addresses = |count: usize| {
        let list = (0..count).map(|i| format!("\"10.{}.{}.1/24\", ", i / 250, i % 250));
        format!("{SEGMENT}address = [{}]\n", list.collect::<String>())
    };
    let ports = |count: usize| {
        let list: Vec<String> = (0..count).map(|i| (2 * i + 1).to_string()).collect();
        edited(&[(15, &format!("ports = [{}]", list.join(", ")))])
    };
    let vip_macs = |count: usize| {
        let list: String = (0..count).map(|i| format!("\"52:54:00:00:01:{i:02x}\", ")).collect();
        edited(&[(19, &format!("address = \"10.0.0.11\"\nvip_mac = [{list}]"))])
    };
    let services = |count: usize| large(count as u32, 0);
    let real_servers = |count: usize| large(1, count as u32);
    type Make<'m> = &'m dyn Fn(usize) -> String;
    let rows: [(Make<'_>, usize, &str); 6] = [
        (&segments, SEGMENTS_MAX, "4097 segments"),
        (&addresses, ADDRESSES_MAX, "`address` has 257 elements"),
        (&ports, PORT_RANGES_MAX, "`ports` lists 257 ports and ranges"),
        (&vip_macs, VIP_MACS_MAX, "`vip_mac` has 65 elements"),
        (&services, SERVICES_MAX, "65537 services"),
        (&real_servers, REAL_SERVERS_MAX, "65537 real servers"),
    ];
    for (make, max, message) in rows {
        accepted(&make(max));
        let diagnostics = refused(&make(max + 1));
        let messages: Vec<_> = diagnostics.iter().map(|item| &*item.message).collect();
        assert_eq!(messages, [message]);
    }
}

#[test]
fn a_text_that_is_too_long_is_refused_unread() {
    let mut text = BASE.to_owned();
    text.push_str(&"#".repeat(TEXT_BYTES_MAX - text.len()));
    accepted(&text);
    text.push('#');
    let diagnostics = refused(&text);
    assert_eq!(listed(&diagnostics), ["1:1: the file is larger than 16 MiB"]);
    assert!(diagnostics.to_string().len() < 1000);
}

#[test]
fn many_mistakes_are_counted_but_not_all_listed() {
    let mut text = BASE.to_owned();
    for i in 0..MISTAKES_LISTED_MAX + 7 {
        let _ = writeln!(text, "k{i} = 1");
    }
    let diagnostics = refused(&text);
    assert_eq!(diagnostics.iter().count(), MISTAKES_LISTED_MAX);
    assert_eq!(diagnostics.count(), MISTAKES_LISTED_MAX + 7);
    assert!(diagnostics.to_string().ends_with("\n\n… and 7 more mistakes, not listed"));
}

/// Rendering costs what the quoted lines are long, so endless ones are not quoted.
#[test]
fn an_endless_line_is_pointed_at_but_not_quoted() {
    let name = "x".repeat(100_000);
    let diagnostics = refused(&edited(&[(12, &format!("name = \"{name}\""))]));
    assert_eq!(listed(&diagnostics), ["12:8: `name` is 100000 bytes long"]);
    let rendered = diagnostics.to_string();
    assert!(rendered.contains("test.toml:12:8") && rendered.len() < 1000, "{rendered}");
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        "[".repeat(100_000),
        "x = ".to_owned() + &"[".repeat(100_000),
        "a.".repeat(100_000) + "a = 1",
    ] {
        assert!(refused(&text).count() > 0);
    }
}

/// A configuration with much of what there is in it.
const RICH: &str = concat!(
    "[router]\nname = 'edge'\nmetrics = '127.0.0.1:9469'\n[announce]\nrefresh = '60s'\n",
    "[timeouts]\nudp = '5m'\n",
    "[segment.front]\nrole = \"both\"\ntap = \"t\"\nbridge = \"b\"\nmac = \"02:00:00:00:01:01\"\n",
    "mtu = 1500\naddress = [\"192.0.2.2/24\", \"2001:db8::2/64\"]\n",
    "[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"udp\"\nports = [53, \"8000-8099\"]\n",
    "persistence = { timeout = \"5m\", netmask = 24 }\none_packet = true\nscheduler = \"wrr\"\n",
    "[[service.real_server]]\naddress = \"192.0.2.11\"\nvip_mac = [\"52:54:00:00:00:12\"]\n",
    "[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = \"any\"\n",
    "real_server = [{ address = \"192.0.2.12\" }, { address = \"2001:db8::12\", weight = 0 }]\n",
);

/// Cuts, repeats and inserts until nothing may be left to recognise.
fn mutated(edits: &[(usize, u8, char)]) -> String {
    let mut chars: Vec<char> = RICH.chars().collect();
    for (at, kind, char) in edits {
        let at = at % (chars.len() + 1);
        let end = (at + usize::from(*kind)).min(chars.len());
        match kind % 4 {
            0 => chars.insert(at, *char),
            1 => drop(chars.drain(at..end)),
            2 => {
                let copy = chars[at..end].to_vec();
                chars.splice(at..at, copy);
            }
            _ if at < chars.len() => chars[at] = *char,
            _ => {}
        }
    }
    chars.into_iter().collect()
}

/// Neither parsing nor rendering panics, and every place reported is in the text.
fn survives(text: &str) -> Result<(), TestCaseError> {
    let Err(diagnostics) = parse(text, "test.toml") else { return Ok(()) };
    prop_assert!(diagnostics.count() > 0);
    prop_assert!(!diagnostics.to_string().is_empty());
    let lines: Vec<&str> = text.split('\n').collect();
    for item in &diagnostics {
        prop_assert!(item.line() <= lines.len());
        prop_assert!(item.column() <= lines[item.line() - 1].chars().count() + 1);
    }
    Ok(())
}

proptest! {
    #[test]
    fn mutated_configurations_do_not_panic(
        edits in prop::collection::vec(
            (any::<usize>(), any::<u8>(), prop_oneof![
                prop::sample::select("[]{}=\"'#.,\n\r\\-:/0e é𝄞\0\u{feff}".chars().collect::<Vec<_>>()),
                any::<char>(),
            ]),
            1..12,
        )
    ) {
        survives(&mutated(&edits))?;
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in any::<String>()) {
        survives(&text)?;
    }
}

#[test]
fn a_configuration_that_lacks_any_part_does_not_panic() {
    assert_eq!(accepted(RICH).services.len(), 2);
    for (at, char) in RICH.char_indices() {
        survives(&RICH[..at]).unwrap();
        survives(&RICH[at..]).unwrap();
        survives(&[&RICH[..at], &RICH[at + char.len_utf8()..]].concat()).unwrap();
    }
}

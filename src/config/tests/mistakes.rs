//! Every mistake there is: its place, its words.

use super::{BASE, accepted, edited, listed, refused};

/// Edits of [`BASE`], and what is wrong then.
type Row<'r> = (&'r [(usize, &'r str)], &'r [&'r str]);

fn check(rows: &[Row<'_>]) {
    for (edits, expected) in rows {
        let text = edited(edits);
        let diagnostics = refused(&text);
        assert_eq!(listed(&diagnostics), *expected, "\n{text}\n\n{diagnostics}\n");
        let rendered = diagnostics.to_string();
        for item in &diagnostics {
            let place = format!("--> test.toml:{}:{}\n", item.line(), item.column());
            assert!(rendered.contains(&place), "{place} is not in\n{rendered}");
            assert!(rendered.contains(&format!("error: {}\n", item.message)), "{rendered}");
            let helps = item.expected().is_some() || item.help.is_some();
            let is_syntax = item.message.starts_with("not TOML: ");
            assert!(helps || is_syntax, "neither expectation nor remedy:\n{rendered}");
        }
    }
}

#[test]
fn misplaced_keys_and_tables_are_named() {
    check(&[
        (&[(2, "role = \"vip\"\nadress = []")], &["3:1: unknown key `adress` in [segment.front]"]),
        (&[(2, "role = \"vip\"\nweight = 3")], &["3:1: unknown key `weight` in [segment.front]"]),
        (
            &[(2, "role = \"vip\"\nfrobnicate = 3")],
            &["3:1: unknown key `frobnicate` in [segment.front]"],
        ),
        (&[(2, "role = \"vip\"\nname = \"x\"")], &["3:1: unknown key `name` in [segment.front]"]),
        (&[(1, "[segmnt.x]\n[segment.front]")], &["1:2: unknown key `segmnt` in the file"]),
        (
            &[(1, "[timeouts]\ntcp_estab = 5\n[segment.front]")],
            &["2:1: unknown key `tcp_estab` in [timeouts]"],
        ),
        (
            &[(1, "[timeouts]\ntcp_established_ = 5\n[segment.front]")],
            &["2:1: unknown key `tcp_established_` in [timeouts]"],
        ),
        (
            &[(1, "[router]\nstate = \"\"\nnam = \"x\"\n[segment.front]")],
            &["2:9: `state` is not a path: \"\"", "3:1: unknown key `nam` in [router]"],
        ),
        (&[(2, "role = \"vip\"\nsocket = \"x\"")], &["3:1: `socket` with attach = \"tap\""]),
        (
            &[(2, "role = \"vip\"\nuplink = \"eth0\"")],
            &["3:10: `uplink` in a segment without a bridge"],
        ),
        (
            &[(2, "role = \"vip\"\nbridge = \"b\"\nuplink = \"52:54:00:00:00:xx\"")],
            &["4:10: `uplink` is not a MAC address: \"52:54:00:00:00:xx\""],
        ),
        (
            &[(2, "role = \"vip\"\nbridge = \"b\"\nuplink = \"a card with a long name\"")],
            &["4:10: `uplink` is 23 bytes long: \"a card with a long name\""],
        ),
        (
            &[(2, "role = \"vip\"\narp_guard = true")],
            &["3:13: `arp_guard` on a segment without a bridge"],
        ),
        (&[(15, "ports = 80\non_removal = \"cut\"")], &["16:14: `on_removal` cannot be \"cut\""]),
        (
            &[(1, "[segment]\nrole = \"vip\"\n[segment.front]")],
            &["2:1: `role` in a segment without a name"],
        ),
        (
            &[(1, "segment = 3"), (2, ""), (3, ""), (4, ""), (6, ""), (7, ""), (8, ""), (9, "")],
            &["1:1: no segment is configured", "1:11: `segment` is a whole number"],
        ),
        (&[(11, "[service]"), (17, "[service.real_server]")], &["11:1: `service` is a table"]),
        (&[(17, "[service.real_server]")], &["17:1: `real_server` is a table"]),
        (
            &[(1, "router = 3\n[segment.front]")],
            &["1:10: found a whole number where the table [router] belongs"],
        ),
        (
            &[(1, "[segment.none]\n[segment.front]")],
            &["1:1: [segment.none] without `role`", "1:1: [segment.none] without `tap`"],
        ),
        (
            &[(11, "[[service]]\n[[service]]")],
            &[
                "11:1: [[service]] without `vip`",
                "11:1: [[service]] without `protocol`",
                "11:1: [[service]] without `ports`",
            ],
        ),
        (
            &[(19, "address = \"10.0.0.11\"\n[[service.real_server]]\n")],
            &["20:1: [[service.real_server]] without `address`"],
        ),
        (&[(1, "[segment.\"a b\"]")], &["1:10: \"a b\" cannot be the name of a segment"]),
        (&[(1, "[segment.\"../x\"]")], &["1:10: \"../x\" cannot be the name of a segment"]),
        (&[(1, "[segment.\"\"]")], &["1:10: \"\" cannot be the name of a segment"]),
        (
            &[(1, "[segment]\nx = 3\n[segment.front]")],
            &["2:5: found a whole number where the table [segment.x] belongs"],
        ),
    ]);
}

#[test]
fn keys_that_do_not_go_with_the_attachment_are_named() {
    check(&[
        (&[(3, "tap = \"t\"\nattach = \"tpa\"")], &["4:10: `attach` cannot be \"tpa\""]),
        (&[(3, "tap = \"t\"\noffload = \"on\"")], &["4:11: `offload` cannot be \"on\""]),
        (&[(3, "interface = \"eth0\"")], &["3:1: `interface` without `attach`"]),
        (&[(3, "tap = \"t\"\ninterface = \"eth0\"")], &["4:1: `interface` with attach = \"tap\""]),
        (
            &[(3, "attach = \"tap\"\ninterface = \"eth0\"")],
            &["1:1: [segment.front] without `tap`", "4:1: `interface` with attach = \"tap\""],
        ),
        (&[(3, "attach = \"packet\"")], &["1:1: [segment.front] without `interface`"]),
        (&[(3, "attach = \"xdp\"")], &["1:1: [segment.front] without `interface`"]),
        (
            &[(3, "attach = \"xdp\"\ninterface = \"eth0\"\nvlan = 10")],
            &["5:8: `vlan` with attach = \"xdp\""],
        ),
        (
            &[(3, "attach = \"packet\"\ninterface = \"eth0\"\ntap = \"t\"\nbridge = \"b\"")],
            &["5:1: `tap` with attach = \"packet\"", "6:1: `bridge` with attach = \"packet\""],
        ),
        (
            &[(3, "attach = \"packet\"\ninterface = \"eth0/1\"")],
            &["4:13: `interface` is not a name of a device: \"eth0/1\""],
        ),
        (
            &[
                (3, "attach = \"packet\"\ninterface = \"eth0\""),
                (8, "attach = \"xdp\"\ninterface = \"eth0\""),
            ],
            &["10:13: interface `eth0` is in use already"],
        ),
        (
            &[
                (3, "attach = \"packet\"\ninterface = \"eth0\""),
                (8, "tap = \"t\"\nbridge = \"eth0\""),
            ],
            &["10:10: bridge `eth0` is in use already"],
        ),
    ]);
}

#[test]
fn sockets_of_machines_go_with_nothing_else() {
    let long = format!("attach = \"qemu\"\nsocket = \"/{}\"", "x".repeat(107));
    check(&[
        (&[(3, "socket = \"/run/f\"")], &["3:1: `socket` without `attach`"]),
        (&[(3, "connect = [\"/run/1\"]")], &["3:1: `connect` without `attach`"]),
        (&[(3, "attach = \"qemu\"")], &["1:1: [segment.front] without `socket`"]),
        (&[(3, "attach = \"qemu\"\nconnect = []")], &["1:1: [segment.front] without `socket`"]),
        (&[(3, "attach = \"qemu\"\nconnect = \"/run/1\"")], &["4:11: `connect` is a string"]),
        (&[(3, "attach = \"qemu\"\nsocket = \"\"")], &["4:10: `socket` is not a path: \"\""]),
        (&[(3, &long)], &["4:10: `socket` is 108 bytes long"]),
        (
            &[(3, "attach = \"qemu\"\nsocket = \"/run/f\"\ntap = \"t\"\nuplink = \"eth0\"")],
            &["5:1: `tap` with attach = \"qemu\"", "6:1: `uplink` with attach = \"qemu\""],
        ),
        (&[(3, "tap = \"t\"\nsocket = \"/run/f\"")], &["4:1: `socket` with attach = \"tap\""]),
        (
            &[(3, "attach = \"packet\"\ninterface = \"eth0\"\nconnect = [\"/run/1\"]")],
            &["5:1: `connect` with attach = \"packet\""],
        ),
        (
            &[(3, "attach = \"qemu\"\nsocket = \"/run/f\"\narp_guard = true")],
            &["5:13: `arp_guard` on a segment without a bridge"],
        ),
        (
            &[
                (3, "attach = \"qemu\"\nsocket = \"/run/f\"\nconnect = [\"/run/f\"]"),
                (8, "attach = \"qemu\"\nconnect = [\"/run/1\", \"/run/f\"]"),
            ],
            &[
                "5:12: socket `/run/f` is in use already",
                "11:22: socket `/run/f` is in use already",
            ],
        ),
    ]);
}

#[test]
fn values_of_the_wrong_type_are_named() {
    check(&[
        (&[(2, "role = 1.5")], &["2:8: `role` is a number with a fraction"]),
        (&[(3, "tap = 1.5")], &["3:7: `tap` is a number with a fraction"]),
        (&[(13, "vip = 1.5")], &["13:7: `vip` is a number with a fraction"]),
        (&[(14, "protocol = 1.5")], &["14:12: `protocol` is a number with a fraction"]),
        (&[(15, "ports = 1.5")], &["15:9: `ports` is a number with a fraction"]),
        (&[(4, "address = \"192.0.2.2/24\"")], &["4:11: `address` is a string"]),
        (
            &[(4, "address = [1, \"192.0.2.2/24\", true]")],
            &["4:12: `address` is a whole number", "4:31: `address` is a boolean"],
        ),
        (
            &[(4, "address = [\"192.0.2.2/24\"]\nmtu = \"1500\"\nmac = 2\nbridge = false")],
            &[
                "5:7: `mtu` is a string",
                "6:7: `mac` is a whole number",
                "7:10: `bridge` is a boolean",
            ],
        ),
        (
            &[(15, "ports = 80\nscheduler = 1\npersistence = 300\none_packet = \"false\"")],
            &[
                "16:13: `scheduler` is a whole number",
                "17:15: `persistence` is a whole number",
                "18:14: `one_packet` is a string",
            ],
        ),
        (
            &[(
                19,
                "address = \"10.0.0.11\"\nmac = []\nvip_mac = \"52:54:00:00:00:12\"\nsegment = 1979-05-27\nweight = \"1\"\nupper_threshold = -1\nlower_threshold = 1e3",
            )],
            &[
                "20:7: `mac` is an array",
                "21:11: `vip_mac` is a string",
                "22:11: `segment` is a date or time",
                "23:10: `weight` is a string",
                "24:19: `upper_threshold` is out of range: -1",
                "25:19: `lower_threshold` is a number with a fraction",
            ],
        ),
        (
            &[(
                1,
                "[router]\nname = 1\ncontrol_socket = 1\nmetrics = 9469\nconnections_max = \"1M\"\nunmatched = true\n[segment.front]",
            )],
            &[
                "2:8: `name` is a whole number",
                "3:18: `control_socket` is a whole number",
                "4:11: `metrics` is a whole number",
                "5:19: `connections_max` is a string",
                "6:13: `unmatched` is a boolean",
            ],
        ),
        (
            &[(
                1,
                "[announce]\ncount = \"5\"\nrepeat = -1\nrepeat_after = true\nrefresh = 1.5\n[segment.front]",
            )],
            &[
                "2:9: `count` is a string",
                "3:10: `repeat` is out of range: -1",
                "4:16: `repeat_after` is a boolean",
                "5:11: `refresh` is a number with a fraction",
            ],
        ),
    ]);
}

#[test]
fn numbers_out_of_range_are_named() {
    check(&[
        (&[(4, "address = [\"192.0.2.2/24\"]\nmtu = 67")], &["5:7: `mtu` is out of range: 67"]),
        (
            &[(4, "address = [\"192.0.2.2/24\"]\nmtu = 65522")],
            &["5:7: `mtu` is out of range: 65522"],
        ),
        (
            &[(1, "[router]\nconnections_max = 0\n[segment.front]")],
            &["2:19: `connections_max` is out of range: 0"],
        ),
        (
            &[(1, "[router]\nconnections_max = 16777217\n[segment.front]")],
            &["2:19: `connections_max` is out of range: 16777217"],
        ),
        (
            &[(1, "[announce]\ncount = 256\n[segment.front]")],
            &["2:9: `count` is out of range: 256"],
        ),
        (
            &[(19, "address = \"10.0.0.11\"\nweight = 65536")],
            &["20:10: `weight` is out of range: 65536"],
        ),
        (
            &[(19, "address = \"10.0.0.11\"\nweight = 0x10000")],
            &["20:10: `weight` is out of range: 0x10000"],
        ),
        (
            &[(19, "address = \"10.0.0.11\"\nweight = 99999999999999999999")],
            &["20:10: `weight` is out of range: 99999999999999999999"],
        ),
        (
            &[(15, "ports = 80\npersistence = { netmask = 0 }")],
            &["16:27: `netmask` is out of range: 0"],
        ),
        (
            &[(15, "ports = 80\npersistence = { netmask = 33 }")],
            &["16:27: `netmask` is out of range: 33"],
        ),
        (
            &[(15, "ports = 80\npersistence = { netmask = 129 }")],
            &["16:27: `netmask` is out of range: 129"],
        ),
    ]);
}

#[test]
fn impossible_names_are_named() {
    check(&[
        (&[(12, "name = \"\"")], &["12:8: `name` is empty"]),
        (
            &[(12, "name = \" web\"")],
            &["12:8: `name` has a control character or outer space: \" web\""],
        ),
        (
            &[(12, "name = \"w\\u001beb\"")],
            &["12:8: `name` has a control character or outer space: \"w\\u{1b}eb\""],
        ),
        (
            &[(
                12,
                "name = \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
            )],
            &["12:8: `name` is 129 bytes long"],
        ),
        (&[(3, "tap = \"\"")], &["3:7: `tap` is empty"]),
        (
            &[(3, "tap = \"sixteen-bytes-xx\"")],
            &["3:7: `tap` is 16 bytes long: \"sixteen-bytes-xx\""],
        ),
        (&[(3, "tap = \"a/b\"")], &["3:7: `tap` is not a name of a device: \"a/b\""]),
        (&[(3, "tap = \"a b\"")], &["3:7: `tap` is not a name of a device: \"a b\""]),
        (&[(3, "tap = \"tap%d\"")], &["3:7: `tap` is not a name of a device: \"tap%d\""]),
        (&[(3, "tap = \"a:b\"")], &["3:7: `tap` is not a name of a device: \"a:b\""]),
        (&[(3, "tap = \"é\"")], &["3:7: `tap` is not a name of a device: \"é\""]),
        (&[(3, "tap = \"..\"")], &["3:7: `tap` is not a name of a device: \"..\""]),
        (&[(3, "tap = \".\"")], &["3:7: `tap` is not a name of a device: \".\""]),
        (&[(3, "tap = \"a\\u0000b\"")], &["3:7: `tap` is not a name of a device: \"a\\u{0}b\""]),
        (
            &[(3, "tap = \"t\"\nbridge = \"sixteen-bytes-xx\"")],
            &["4:10: `bridge` is 16 bytes long: \"sixteen-bytes-xx\""],
        ),
        (
            &[(1, "[router]\ncontrol_socket = \"\"\n[segment.front]")],
            &["2:18: `control_socket` is not a path: \"\""],
        ),
        (
            &[(
                1,
                "[router]\ncontrol_socket = \"/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\n[segment.front]",
            )],
            &["2:18: `control_socket` is 108 bytes long"],
        ),
    ]);
}

#[test]
fn impossible_addresses_are_named() {
    check(&[
        (
            &[(13, "vip = \"web.example.com\"")],
            &["13:7: `vip` is not an address: \"web.example.com\""],
        ),
        (&[(13, "vip = \"192.0.2.10/32\"")], &["13:7: `vip` is not an address: \"192.0.2.10/32\""]),
        (&[(13, "vip = \"192.0.2.10:80\"")], &["13:7: `vip` is not an address: \"192.0.2.10:80\""]),
        (&[(13, "vip = \"fe80::1%eth0\"")], &["13:7: `vip` is not an address: \"fe80::1%eth0\""]),
        (&[(13, "vip = \"0.0.0.0\"")], &["13:7: `vip` is the unspecified address: 0.0.0.0"]),
        (&[(13, "vip = \"::\"")], &["13:7: `vip` is the unspecified address: ::"]),
        (&[(13, "vip = \"224.0.0.1\"")], &["13:7: `vip` is a multicast address: 224.0.0.1"]),
        (&[(13, "vip = \"ff02::1\"")], &["13:7: `vip` is a multicast address: ff02::1"]),
        (&[(13, "vip = \"127.0.0.1\"")], &["13:7: `vip` is a loopback address: 127.0.0.1"]),
        (&[(13, "vip = \"::1\"")], &["13:7: `vip` is a loopback address: ::1"]),
        (
            &[(13, "vip = \"255.255.255.255\"")],
            &["13:7: `vip` is the broadcast address: 255.255.255.255"],
        ),
        (
            &[(13, "vip = \"::ffff:192.0.2.10\"")],
            &["13:7: `vip` is an IPv4-mapped address: ::ffff:192.0.2.10"],
        ),
        (
            &[(13, "vip = \"192.0.2.255\"")],
            &["13:7: VIP 192.0.2.255 is the broadcast address of the network"],
        ),
        (&[(13, "vip = \"192.0.2.0\"")], &["13:7: VIP 192.0.2.0 is the address of the network"]),
        (&[(13, "vip = \"192.0.2.2\"")], &["13:7: VIP 192.0.2.2 is the director's own address"]),
        (
            &[(13, "vip = \"10.0.0.11\"")],
            &["19:11: real server 10.0.0.11 has the address of a VIP"],
        ),
        (&[(13, "vip = \"10.0.0.1\"")], &["13:7: VIP 10.0.0.1 is the director's own address"]),
        (
            &[(19, "address = \"10.0.0.1\"")],
            &["19:11: real server 10.0.0.1 is the director's own address"],
        ),
        (
            &[(19, "address = \"10.0.0.255\"")],
            &["19:11: real server 10.0.0.255 is the broadcast address of the network"],
        ),
        (
            &[(19, "address = \"192.0.2.2\"")],
            &["19:11: real server 192.0.2.2 is the director's own address"],
        ),
        (
            &[(19, "address = \"127.0.0.1\"")],
            &["19:11: `address` is a loopback address: 127.0.0.1"],
        ),
        (
            &[(4, "address = [\"192.0.2.2\"]")],
            &["4:12: `address` is not an address with its prefix length: \"192.0.2.2\""],
        ),
        (
            &[(4, "address = [\"2001:db8::2\"]")],
            &["4:12: `address` is not an address with its prefix length: \"2001:db8::2\""],
        ),
        (
            &[(4, "address = [\"192.0.2.2/33\"]")],
            &["4:12: `address` is not an address with its prefix length: \"192.0.2.2/33\""],
        ),
        (
            &[(4, "address = [\"front/24\"]")],
            &["4:12: `address` is not an address with its prefix length: \"front/24\""],
        ),
        (
            &[(4, "address = [\"192.0.2.0/24\"]")],
            &["4:12: `address` is the address of the network: 192.0.2.0/24"],
        ),
        (
            &[(4, "address = [\"192.0.2.255/24\"]")],
            &["4:12: `address` is the broadcast address of the network: 192.0.2.255/24"],
        ),
        (
            &[(4, "address = [\"2001:db8::/64\"]")],
            &["4:12: `address` is the address of the network: 2001:db8::/64"],
        ),
        (
            &[(4, "address = [\"127.0.0.1/8\"]")],
            &["4:12: `address` is a loopback address: 127.0.0.1/8"],
        ),
        (
            &[(4, "address = [\"192.0.2.2/24\", \"192.0.2.2/25\"]")],
            &["4:28: address 192.0.2.2 is configured twice"],
        ),
        (
            &[(9, "address = [\"10.0.0.1/24\", \"192.0.2.2/24\"]")],
            &["9:27: address 192.0.2.2 is configured twice"],
        ),
        (
            &[(4, "address = [\"2001:db8::2/64\"]\nmtu = 1279")],
            &["5:7: MTU 1279 is too small for IPv6"],
        ),
        (
            &[(1, "[router]\nmetrics = \"9469\"\n[segment.front]")],
            &["2:11: `metrics` is not an address and a port: \"9469\""],
        ),
        (
            &[(1, "[router]\nmetrics = \"127.0.0.1:0\"\n[segment.front]")],
            &["2:11: `metrics` has port 0"],
        ),
    ]);
}

#[test]
fn impossible_macs_and_devices_are_named() {
    check(&[
        (&[(3, "tap = \"t\"\nmac = \"52:54\"")], &["4:7: `mac` is not a MAC address: \"52:54\""]),
        (
            &[(3, "tap = \"t\"\nmac = \"52:54:00:00:00:zz\"")],
            &["4:7: `mac` is not a MAC address: \"52:54:00:00:00:zz\""],
        ),
        (
            &[(3, "tap = \"t\"\nmac = \"01:00:5e:00:00:01\"")],
            &["4:7: `mac` is a group address: 01:00:5e:00:00:01"],
        ),
        (
            &[(3, "tap = \"t\"\nmac = \"ff:ff:ff:ff:ff:ff\"")],
            &["4:7: `mac` is a group address: ff:ff:ff:ff:ff:ff"],
        ),
        (
            &[(3, "tap = \"t\"\nmac = \"00:00:00:00:00:00\"")],
            &["4:7: `mac` is zero: 00:00:00:00:00:00"],
        ),
        (
            &[(
                19,
                "address = \"10.0.0.11\"\nmac = \"52-54:00:00:00:11\"\nvip_mac = [\"52:54:00:00:00:12\", \"x\", \"01:00:00:00:00:00\"]",
            )],
            &[
                "20:7: `mac` is not a MAC address: \"52-54:00:00:00:11\"",
                "21:33: `vip_mac` is not a MAC address: \"x\"",
                "21:38: `vip_mac` is a group address: 01:00:00:00:00:00",
            ],
        ),
        (&[(8, "tap = \"vipr-front\"")], &["8:7: TAP `vipr-front` is in use already"]),
        (
            &[(3, "tap = \"t\"\nbridge = \"br0\""), (8, "tap = \"u\"\nbridge = \"br0\"")],
            &["10:10: bridge `br0` is in use already"],
        ),
        (&[(3, "tap = \"t\"\nbridge = \"t\"")], &["4:10: bridge `t` is in use already"]),
        (
            &[(3, "tap = \"t\"\nbridge = \"vipr-back\"")],
            &["9:7: TAP `vipr-back` is in use already"],
        ),
        (
            &[
                (3, "tap = \"t\"\nmac = \"02:00:00:00:00:01\""),
                (8, "tap = \"u\"\nmac = \"02-00-00-00-00-01\""),
            ],
            &["10:7: MAC address 02:00:00:00:00:01 on two segments"],
        ),
        (
            &[
                (8, "tap = \"u\"\nmac = \"02:00:00:00:00:01\""),
                (19, "address = \"10.0.0.11\"\nmac = \"02:00:00:00:00:01\""),
            ],
            &["21:7: 02:00:00:00:00:01 is the director's own MAC address"],
        ),
        (
            &[
                (8, "tap = \"u\"\nmac = \"02:00:00:00:00:01\""),
                (19, "address = \"10.0.0.11\"\nvip_mac = [\"02:00:00:00:00:01\"]"),
            ],
            &["21:12: 02:00:00:00:00:01 is the director's own MAC address"],
        ),
    ]);
}

#[test]
fn impossible_times_are_named() {
    check(&[
        (
            &[(1, "[timeouts]\nudp = \"5 m\"\n[segment.front]")],
            &["2:7: `udp` is not a time: \"5 m\""],
        ),
        (
            &[(1, "[timeouts]\nudp = \"5min\"\n[segment.front]")],
            &["2:7: `udp` is not a time: \"5min\""],
        ),
        (&[(1, "[timeouts]\nudp = \"\"\n[segment.front]")], &["2:7: `udp` is not a time: \"\""]),
        (&[(1, "[timeouts]\nudp = -5\n[segment.front]")], &["2:7: `udp` is out of range: -5"]),
        (
            &[(1, "[timeouts]\nudp = \"-5\"\n[segment.front]")],
            &["2:7: `udp` is not a time: \"-5\""],
        ),
        (
            &[(1, "[timeouts]\nudp = 1.5\n[segment.front]")],
            &["2:7: `udp` is a number with a fraction"],
        ),
        (&[(1, "[timeouts]\nudp = 0\n[segment.front]")], &["2:7: `udp` is zero"]),
        (&[(1, "[timeouts]\nudp = \"0s\"\n[segment.front]")], &["2:7: `udp` is zero"]),
        (
            &[(1, "[timeouts]\nudp = \"32d\"\n[segment.front]")],
            &["2:7: `udp` is longer than 31 days"],
        ),
        (
            &[(1, "[timeouts]\nudp = 2678401\n[segment.front]")],
            &["2:7: `udp` is longer than 31 days"],
        ),
        (
            &[(1, "[timeouts]\nudp = 99999999999999999999\n[segment.front]")],
            &["2:7: `udp` is out of range: 99999999999999999999"],
        ),
        (
            &[(1, "[announce]\nrefresh = \"32d\"\n[segment.front]")],
            &["2:11: `refresh` is longer than 31 days"],
        ),
        (
            &[(15, "ports = 80\npersistence = { timeout = 0 }")],
            &["16:27: `timeout` of a persistence is zero"],
        ),
        (
            &[(15, "ports = 80\npersistence = { timeout = \"0ms\" }")],
            &["16:27: `timeout` of a persistence is zero"],
        ),
    ]);
}

#[test]
fn impossible_choices_are_named() {
    check(&[
        (&[(2, "role = \"vips\"")], &["2:8: `role` cannot be \"vips\""]),
        (&[(2, "role = \"client\"")], &["2:8: `role` cannot be \"client\""]),
        (&[(2, "role = \"vip\"\ndefend = \"attack\"")], &["3:10: `defend` cannot be \"attack\""]),
        (
            &[(1, "[router]\nunmatched = \"deny\"\n[segment.front]")],
            &["2:13: `unmatched` cannot be \"deny\""],
        ),
        (&[(14, "protocol = \"TCP\"")], &["14:12: `protocol` cannot be \"TCP\""]),
        (&[(14, "protocol = \"icmp\"")], &["14:12: `protocol` cannot be \"icmp\""]),
        (&[(14, "protocol = \"dccp\"")], &["14:12: `protocol` cannot be \"dccp\""]),
        (&[(15, "ports = 80\nscheduler = \"wlcc\"")], &["16:13: `scheduler` cannot be \"wlcc\""]),
        (
            &[(15, "ports = 80\nscheduler = \"random\"")],
            &["16:13: `scheduler` cannot be \"random\""],
        ),
    ]);
}

#[test]
fn impossible_ports_are_named() {
    check(&[
        (&[(15, "ports = 0")], &["15:9: `ports` has port 0"]),
        (&[(15, "ports = 65536")], &["15:9: `ports` is out of range: 65536"]),
        (&[(15, "ports = -1")], &["15:9: `ports` is out of range: -1"]),
        (&[(15, "ports = \"0\"")], &["15:9: `ports` has port 0"]),
        (&[(15, "ports = \"0-10\"")], &["15:9: `ports` has port 0"]),
        (
            &[(15, "ports = \"90-80\"")],
            &["15:9: `ports` has a range that ends before it starts: \"90-80\""],
        ),
        (&[(15, "ports = \"http\"")], &["15:9: `ports` is not a port or a range: \"http\""]),
        (&[(15, "ports = \"80-\"")], &["15:9: `ports` is not a port or a range: \"80-\""]),
        (&[(15, "ports = \"\"")], &["15:9: `ports` is not a port or a range: \"\""]),
        (&[(15, "ports = \"80,80\"")], &["15:9: `ports` has port 80 twice"]),
        (&[(15, "ports = []")], &["15:9: `ports` has no port"]),
        (&[(15, "ports = [80, 0]")], &["15:14: `ports` has port 0"]),
        (&[(15, "ports = [80, 80]")], &["15:14: `ports` has port 80 twice"]),
        (&[(15, "ports = [\"80-90\", 85]")], &["15:19: `ports` has port 85 twice"]),
        (&[(15, "ports = [85, \"80-90\"]")], &["15:14: `ports` has port 85 twice"]),
        (&[(15, "ports = [\"80-90\", \"90-99\"]")], &["15:19: `ports` has port 90 twice"]),
        (&[(15, "ports = [\"any\"]")], &["15:10: `ports` has \"any\" among other ports"]),
        (
            &[(15, "ports = [80, \"x\", 70000, true]")],
            &[
                "15:14: `ports` is not a port or a range: \"x\"",
                "15:19: `ports` is out of range: 70000",
                "15:26: `ports` is a boolean",
            ],
        ),
        (&[(15, "ports = \"1-65536\"")], &["15:9: `ports` is not a port or a range: \"1-65536\""]),
        (&[(15, "ports = { from = 80 }")], &["15:9: `ports` is a table"]),
        (
            &[(
                15,
                "ports = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63, 65, 67, 69, 71, 73, 75, 77, 79, 81, 83, 85, 87, 89, 91, 93, 95, 97, 99, 101, 103, 105, 107, 109, 111, 113, 115, 117, 119, 121, 123, 125, 127, 129, 131, 133, 135, 137, 139, 141, 143, 145, 147, 149, 151, 153, 155, 157, 159, 161, 163, 165, 167, 169, 171, 173, 175, 177, 179, 181, 183, 185, 187, 189, 191, 193, 195, 197, 199, 201, 203, 205, 207, 209, 211, 213, 215, 217, 219, 221, 223, 225, 227, 229, 231, 233, 235, 237, 239, 241, 243, 245, 247, 249, 251, 253, 255, 257, 259, 261, 263, 265, 267, 269, 271, 273, 275, 277, 279, 281, 283, 285, 287, 289, 291, 293, 295, 297, 299, 301, 303, 305, 307, 309, 311, 313, 315, 317, 319, 321, 323, 325, 327, 329, 331, 333, 335, 337, 339, 341, 343, 345, 347, 349, 351, 353, 355, 357, 359, 361, 363, 365, 367, 369, 371, 373, 375, 377, 379, 381, 383, 385, 387, 389, 391, 393, 395, 397, 399, 401, 403, 405, 407, 409, 411, 413, 415, 417, 419, 421, 423, 425, 427, 429, 431, 433, 435, 437, 439, 441, 443, 445, 447, 449, 451, 453, 455, 457, 459, 461, 463, 465, 467, 469, 471, 473, 475, 477, 479, 481, 483, 485, 487, 489, 491, 493, 495, 497, 499, 501, 503, 505, 507, 509, 511, 513]",
            )],
            &["15:9: `ports` lists 257 ports and ranges"],
        ),
    ]);
}

#[test]
fn clashes_of_services_are_named() {
    check(&[
        (
            &[(
                19,
                "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80",
            )],
            &["24:9: two services claim port 80 of 192.0.2.10 for tcp"],
        ),
        (
            &[(
                19,
                "address = \"10.0.0.11\"\n\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 81",
            )],
            &["22:8: two services are named \"web\""],
        ),
        (
            &[(
                19,
                "address = \"10.0.0.11\"\n\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80",
            )],
            &[
                "22:8: two services are named \"web\"",
                "25:9: two services claim port 80 of 192.0.2.10 for tcp",
            ],
        ),
        (
            &[
                (12, ""),
                (
                    19,
                    "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80",
                ),
            ],
            &["24:9: two services claim port 80 of 192.0.2.10 for tcp"],
        ),
        (
            &[
                (12, "name = \"192.0.2.10:81/tcp\""),
                (
                    19,
                    "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 81",
                ),
            ],
            &["21:1: two services are named \"192.0.2.10:81/tcp\""],
        ),
        (
            &[
                (15, "ports = [80, 443]"),
                (
                    19,
                    "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = [443, 80, 8080]",
                ),
            ],
            &["24:9: two services claim port 80 of 192.0.2.10 for tcp"],
        ),
        (
            &[
                (15, "ports = \"80-90\""),
                (
                    19,
                    "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = [\"70-79\", \"85-95\"]",
                ),
            ],
            &["24:9: two services claim port 85-90 of 192.0.2.10 for tcp"],
        ),
        (
            &[
                (15, "ports = \"80-90\""),
                (
                    19,
                    "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = \"1-100\"",
                ),
            ],
            &["24:9: two services claim port 80-90 of 192.0.2.10 for tcp"],
        ),
        (
            &[
                (15, "ports = \"80-90\""),
                (
                    19,
                    "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = \"90-100\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = \"70-80\"",
                ),
            ],
            &[
                "24:9: two services claim port 90 of 192.0.2.10 for tcp",
                "29:9: two services claim port 80 of 192.0.2.10 for tcp",
            ],
        ),
        (
            &[
                (15, "ports = \"any\""),
                (
                    19,
                    "address = \"10.0.0.11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = \"any\"",
                ),
            ],
            &["24:9: two services claim all ports of 192.0.2.10 for tcp"],
        ),
        (&[(15, "ports = 80\none_packet = true")], &["16:14: `one_packet` on a tcp service"]),
        (&[(15, "ports = 80\nsloppy_sctp = true")], &["16:15: `sloppy_sctp` on a tcp service"]),
        (
            &[(14, "protocol = \"udp\"\nsloppy_tcp = true")],
            &["15:14: `sloppy_tcp` on a udp service"],
        ),
        (
            &[(15, "ports = 80\nexpire_quiescent = true")],
            &["16:20: `expire_quiescent` without `persistence`"],
        ),
        (&[(15, "ports = 80\nquorum = 0")], &["16:10: `quorum` is out of range: 0"]),
        (
            &[(15, "ports = 80\nquorum_hysteresis = 1")],
            &["16:21: `quorum_hysteresis` 1 is not below `quorum` 1"],
        ),
        (
            &[(15, "ports = 80\nquorum = 3\nquorum_hysteresis = 3")],
            &["17:21: `quorum_hysteresis` 3 is not below `quorum` 3"],
        ),
        (
            &[(15, "ports = 80\npersistence = { netmask_v6 = 64 }")],
            &["16:30: `netmask_v6` where all VIPs are of one family"],
        ),
    ]);
}

#[test]
fn wrong_vlans_are_named() {
    let segment = |name: &str, more: &str| {
        format!("[segment.{name}]\nrole = \"both\"\ntap = \"trunk\"\n{more}\n")
    };
    let one = |more: &str| segment("a", more);
    let two = |a: &str, b: &str| [segment("a", a), segment("b", b)].concat();
    let rows = [
        (one("vlan = 0"), vec!["4:8: `vlan` is out of range: 0"]),
        (one("vlan = 4095"), vec!["4:8: `vlan` is out of range: 4095"]),
        (one("vlan = \"ten\""), vec!["4:8: `vlan` is a string"]),
        (one("vlan = { protocol = \"802.1Q\" }"), vec!["4:8: vlan without `id`"]),
        (
            one("vlan = { id = 1, protocol = \"802.1x\" }"),
            vec!["4:29: `protocol` cannot be \"802.1x\""],
        ),
        (two("", ""), vec!["7:7: TAP `trunk` is in use already"]),
        (two("vlan = 7", "vlan = 7"), vec!["7:7: TAP `trunk` has VLAN 7 already"]),
        (
            two("vlan = 7\nbridge = \"br0\"", "vlan = 8"),
            vec!["6:10: segments of one TAP differ in `bridge`"],
        ),
        (
            two("vlan = 7\nmtu = 1400", "vlan = 8\noffload = \"off\""),
            vec![
                "6:10: segments of one TAP differ in `mtu`",
                "6:10: segments of one TAP differ in `offload`",
            ],
        ),
        (
            two("vlan = 7\nbridge = \"br0\"", "vlan = 8\nbridge = \"br0\"")
                + "[segment.c]\nrole = \"both\"\ntap = \"own\"\nbridge = \"br0\"\n",
            vec!["14:10: bridge `br0` is in use already"],
        ),
    ];
    for (text, expected) in rows {
        let diagnostics = refused(&text);
        assert_eq!(listed(&diagnostics), expected, "\n{text}\n\n{diagnostics}\n");
    }
}

#[test]
fn wrong_groups_are_named() {
    let group = |listen: &str| edited(&[(13, &format!("listen = [{listen}]")), (14, ""), (15, "")]);
    let rows: &[(&str, &[&str])] = &[
        ("", &["13:10: `listen` has 0 elements"]),
        ("80", &["13:11: `listen` is a whole number"]),
        (
            "\"192.0.2.10\"",
            &["13:11: `listen` is not a VIP with ports and a protocol: \"192.0.2.10\""],
        ),
        (
            "\"2001:db8::1:80/tcp\"",
            &["13:11: `listen` is not a VIP with ports and a protocol: \"2001:db8::1:80/tcp\""],
        ),
        ("\"192.0.2.300:80/tcp\"", &["13:11: `listen` is not an address: \"192.0.2.300\""]),
        ("\"192.0.2.10:0/tcp\"", &["13:11: `listen` has port 0"]),
        ("\"192.0.2.10:80/icmp\"", &["13:11: `listen` cannot be \"icmp\""]),
        ("{ vip = \"192.0.2.10\", ports = 80 }", &["13:11: listen without `protocol`"]),
        (
            "\"192.0.2.10:80/tcp\", \"192.0.2.10:80/tcp\"",
            &["13:32: `listen` has port 80 of 192.0.2.10 for tcp twice"],
        ),
        (
            "\"192.0.2.10:80/tcp\", \"192.0.2.10:70-90/tcp\"",
            &["13:32: `listen` has port 80 of 192.0.2.10 for tcp twice"],
        ),
        (
            "\"192.0.2.10:any/tcp\", \"192.0.2.10:80/tcp\"",
            &["13:33: `listen` has ports of 192.0.2.10 for tcp twice"],
        ),
        ("\"192.0.2.2:80/tcp\"", &["13:11: VIP 192.0.2.2 is the director's own address"]),
        ("\"10.0.0.11:80/tcp\"", &["19:11: real server 10.0.0.11 has the address of a VIP"]),
    ];
    for (listen, expected) in rows {
        let text = group(listen);
        let diagnostics = refused(&text);
        assert_eq!(listed(&diagnostics), *expected, "\n{text}\n\n{diagnostics}\n");
    }
    check(&[(
        &[(15, "ports = 80\nlisten = [\"192.0.2.11:80/tcp\"]")],
        &[
            "13:7: `vip` beside `listen`",
            "14:12: `protocol` beside `listen`",
            "15:9: `ports` beside `listen`",
        ],
    )]);
}

#[test]
fn a_group_claims_all_it_listens_on() {
    let other = "[[service]]\nvip = \"192.0.2.11\"\nprotocol = \"udp\"\nports = 53\n";
    let text = edited(&[
        (13, "listen = [\"192.0.2.10:80/tcp\", \"192.0.2.11:53/udp\"]"),
        (14, ""),
        (15, ""),
        (16, other),
    ]);
    let expected = ["19:9: two services claim port 53 of 192.0.2.11 for udp"];
    assert_eq!(listed(&refused(&text)), expected);
}

#[test]
fn wrong_sorry_servers_are_named() {
    let sorry = |table: &str| edited(&[(16, &format!("[service.sorry_server]\n{table}\n"))]);
    for (table, expected) in [
        ("", "16:1: [service.sorry_server] without `address`"),
        ("address = \"10.0.0.11\"", "17:11: real server 10.0.0.11 is in the service twice"),
        ("address = \"192.0.2.10\"", "17:11: real server 192.0.2.10 has the address of a VIP"),
        (
            "address = \"10.0.0.9\"\nweight = 1",
            "18:1: unknown key `weight` in [service.sorry_server]",
        ),
        (
            "address = \"10.0.0.9\"\nsegment = \"front\"",
            "18:11: segment `front` cannot hold real servers",
        ),
    ] {
        let diagnostics = refused(&sorry(table));
        assert_eq!(listed(&diagnostics), [expected], "{diagnostics}");
    }
}

#[test]
fn lost_and_doubled_real_servers_are_named() {
    check(&[
        (
            &[(
                19,
                "address = \"10.0.0.11\"\n[[service.real_server]]\nname = \"rs2\"\naddress = \"10.0.0.11\"",
            )],
            &["22:11: real server 10.0.0.11 is in the service twice"],
        ),
        (
            &[
                (19, "address = \"10.0.0.11\"\n[[service.real_server]]\naddress = \"10.0.0.11\""),
                (18, ""),
            ],
            &["21:11: real server 10.0.0.11 is in the service twice"],
        ),
        (
            &[(
                19,
                "address = \"10.0.0.11\"\n[[service.real_server]]\nname = \"rs1\"\naddress = \"10.0.0.12\"",
            )],
            &["21:8: two real servers of the service are named \"rs1\""],
        ),
        (
            &[
                (18, "name = \"10.0.0.12\""),
                (19, "address = \"10.0.0.11\"\n[[service.real_server]]\naddress = \"10.0.0.12\""),
            ],
            &["21:11: two real servers of the service are named \"10.0.0.12\""],
        ),
        (&[(19, "address = \"10.0.0.11\"\nsegment = \"bock\"")], &["20:11: no segment `bock`"]),
        (&[(19, "address = \"10.0.0.11\"\nsegment = \"lan\"")], &["20:11: no segment `lan`"]),
        (
            &[(19, "address = \"10.0.0.11\"\nsegment = \"front\"")],
            &["20:11: segment `front` cannot hold real servers"],
        ),
        (&[(7, "role = \"vip\"")], &["19:11: real server 10.0.0.11 is on no segment"]),
        (&[(2, "role = \"backend\"")], &["11:1: no segment for the VIPs of the services"]),
        (
            &[(2, "role = \"both\""), (19, "address = \"172.16.0.1\"")],
            &["19:11: real server 172.16.0.1 may be on several segments"],
        ),
        (
            &[(2, "role = \"both\""), (4, "address = [\"192.0.2.2/24\", \"10.0.0.2/16\"]")],
            &["19:11: real server 10.0.0.11 may be on several segments"],
        ),
        (
            &[(
                19,
                "address = \"10.0.0.11\"\nmac = \"52:54:00:00:00:11\"\n\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 81\n\n[[service.real_server]]\naddress = \"10.0.0.11\"\nmac = \"52:54:00:00:00:12\"",
            )],
            &["29:7: real server 10.0.0.11 has two MAC addresses"],
        ),
        (
            &[(19, "address = \"10.0.0.11\"\nlower_threshold = 5")],
            &["20:19: `lower_threshold` without `upper_threshold`"],
        ),
        (
            &[(19, "address = \"10.0.0.11\"\nupper_threshold = 5\nlower_threshold = 6")],
            &["21:19: `lower_threshold` 6 is above `upper_threshold` 5"],
        ),
        (
            &[
                (1, ""),
                (2, ""),
                (3, ""),
                (4, ""),
                (5, ""),
                (6, ""),
                (7, ""),
                (8, ""),
                (9, ""),
                (10, ""),
                (11, ""),
                (12, ""),
                (13, ""),
                (14, ""),
                (15, ""),
                (16, ""),
                (17, ""),
                (18, ""),
                (19, ""),
            ],
            &["1:1: no segment is configured"],
        ),
        (
            &[(1, ""), (2, ""), (3, ""), (4, ""), (5, ""), (6, ""), (7, ""), (8, ""), (9, "")],
            &["1:1: no segment is configured", "19:11: real server 10.0.0.11 is on no segment"],
        ),
    ]);
}

#[test]
fn what_is_not_toml_is_named() {
    check(&[
        (&[(3, "tap = \"vipr-front")], &["3:18: not TOML: invalid basic string"]),
        (&[(3, "tap = ")], &["3:7: not TOML: a key without a value"]),
        (&[(3, "tap")], &["3:4: not TOML: key with no value"]),
        (&[(3, "tap = vipr-front")], &["3:7: not TOML: text without quotation marks"]),
        (&[(3, "tap = \"a\"\ntap = \"b\"")], &["4:1: `tap` is defined twice"]),
        (&[(6, "[segment.front]"), (8, ""), (9, ""), (7, "")], &["6:10: `front` is defined twice"]),
        (&[(6, "[segment.back")], &["6:14: not TOML: unclosed table"]),
        (&[(11, "[[service]")], &["11:11: not TOML: unclosed array table"]),
        (&[(13, "vip = \"192.0.2.10\" \"x\"")], &["13:20: not TOML: unexpected key or value"]),
        (&[(14, "protocol = \"t\\cp\"")], &["14:15: not TOML: missing escaped value"]),
        (&[(15, "ports = [80, 443")], &["15:9: not TOML: `[` is never closed"]),
        (&[(15, "ports = 080")], &["15:9: not TOML: unexpected leading zero"]),
        (&[(14, "protocol = tcp")], &["14:12: not TOML: text without quotation marks"]),
        (&[(14, "protocol = Tcp")], &["14:12: not TOML: text without quotation marks"]),
        (&[(14, "protocol = none")], &["14:12: not TOML: text without quotation marks"]),
        (&[(14, "protocol = 192.0.2.10")], &["14:12: not TOML: text without quotation marks"]),
        (&[(14, "protocol = 5m")], &["14:12: not TOML: text without quotation marks"]),
        (&[(14, "protocol = 2001:db8::1")], &["14:12: not TOML: text without quotation marks"]),
        (
            &[(14, "protocol = 52:54:00:00:00:11")],
            &["14:12: not TOML: text without quotation marks"],
        ),
        (&[(14, "protocol = é")], &["14:12: not TOML: text without quotation marks"]),
        (
            &[(15, "ports = 80\none_packet = True")],
            &["16:14: not TOML: text without quotation marks"],
        ),
        (&[(15, "ports = 8000-8099 # a range")], &["15:9: not TOML: text without quotation marks"]),
        (&[(15, "ports = [80, http]")], &["15:14: not TOML: text without quotation marks"]),
        (&[(11, "[[service"), (13, "vip = 3")], &["11:10: not TOML: unclosed array table"]),
        (&[(1, "[segment.front"), (2, "rule = \"vip\"")], &["1:15: not TOML: unclosed table"]),
        (
            &[(15, "ports = 80\nscheduler = \"wwr\""), (3, "tap = \"x"), (7, "roll = \"x\"")],
            &[
                "3:9: not TOML: invalid basic string",
                "7:1: unknown key `roll` in [segment.back]",
                "16:13: `scheduler` cannot be \"wwr\"",
            ],
        ),
    ]);
}

#[test]
fn options_that_a_scheduler_does_not_have_are_named() {
    let row = |scheduler: &str, options: &str| {
        let lines =
            format!("ports = 80\nscheduler = \"{scheduler}\"\nscheduler_options = {options}");
        listed(&refused(&edited(&[(15, &lines)])))
    };
    for (scheduler, options, expected) in [
        ("wlc", "{ port = true }", "17:30: scheduler wlc has no option `port`"),
        ("dh", "{ fallback = false }", "17:34: scheduler dh has no option `fallback`"),
        ("sh", "{ table_size = 509 }", "17:36: scheduler sh has no option `table_size`"),
        ("mh", "{ expiration = 5 }", "17:36: scheduler mh has no option `expiration`"),
        ("mh", "{ table_size = 4096 }", "17:36: `table_size` cannot be 4096"),
        ("mh", "{ table_size = \"509\" }", "17:36: `table_size` is a string"),
        ("sh", "{ port = 1 }", "17:30: `port` is a whole number"),
        ("lblc", "{ expiration = 0 }", "17:36: `expiration` is zero"),
        ("mh", "{ tablesize = 509 }", "17:23: unknown key `tablesize` in scheduler_options"),
        ("mh", "\"mh-port\"", "17:21: `scheduler_options` is a string"),
    ] {
        assert_eq!(row(scheduler, options), [expected], "{scheduler} {options}");
    }
    let unsaid = edited(&[(15, "ports = 80\nscheduler_options = { port = true }")]);
    assert_eq!(listed(&refused(&unsaid)), ["16:30: scheduler wlc has no option `port`"]);
}

#[test]
fn tables_of_mh_have_room_for_their_servers_and_a_limit_together() {
    let server = |number: usize| {
        format!(
            "{{ address = \"10.1.{}.{}\", segment = \"back\" }}",
            number / 250,
            number % 250 + 1
        )
    };
    let service = |vip: usize, size: usize, servers: usize| {
        let list: Vec<String> = (0..servers).map(server).collect();
        format!(
            "\n[[service]]\nvip = \"192.0.2.{vip}\"\nprotocol = \"tcp\"\nports = 80\n\
             scheduler = \"mh\"\nscheduler_options = {{ table_size = {size} }}\n\
             real_server = [{}]\n",
            list.join(", ")
        )
    };
    let crowded = format!("{BASE}{}", service(50, 251, 252));
    let told = listed(&refused(&crowded));
    assert!(told[0].ends_with("252 real servers for a table of 251 slots"), "{told:?}");
    accepted(&format!("{BASE}{}", service(50, 251, 251)));

    // 128 of the largest are 2^24 less 128.
    let many = |count: usize| {
        let services: String = (0..count).map(|vip| service(100 + vip, 131_071, 1)).collect();
        format!("{BASE}{services}")
    };
    accepted(&many(128));
    let told = listed(&refused(&many(130)));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("the tables of all services with mh are too large together"));
}

/// Mistakes of every layer in one text: syntax, keys, values, and what they say together.
#[test]
fn all_mistakes_are_reported_at_once() {
    let text = edited(&[
        (2, "role = vip"),
        (3, "tap = \"vipr-front-sixteen\"\nbrigde = \"br0\""),
        (8, "tap = \"vipr-back\"\nmtu = 20\nsocket = \"x\""),
        (13, "vip = \"10.0.0.1\""),
        (15, "ports = [0, \"x\"]\nscheduler = \"hm\"\nscheduler = \"wlc\""),
        (19, "address = \"10.0.0.300\"\nweight = \"1\"\nmac = \"01:00:5e:00:00:01\""),
    ]);
    let expected = [
        "2:8: not TOML: text without quotation marks",
        "3:7: `tap` is 18 bytes long: \"vipr-front-sixteen\"",
        "4:1: unknown key `brigde` in [segment.front]",
        "10:7: `mtu` is out of range: 20",
        "11:1: `socket` with attach = \"tap\"",
        "16:7: VIP 10.0.0.1 is the director's own address",
        "18:10: `ports` has port 0",
        "18:13: `ports` is not a port or a range: \"x\"",
        "19:13: `scheduler` cannot be \"hm\"",
        "20:1: `scheduler` is defined twice",
        "24:11: `address` is not an address: \"10.0.0.300\"",
        "25:10: `weight` is a string",
        "26:7: `mac` is a group address: 01:00:5e:00:00:01",
    ];
    let diagnostics = refused(&text);
    assert_eq!(listed(&diagnostics), expected, "{diagnostics}");
    assert_eq!(diagnostics.count(), expected.len());
}

/// What an unclosed bracket swallows is no mistake of its own; what comes after it is.
#[test]
fn an_unclosed_bracket_hides_nothing() {
    for (line, broken, message) in [
        (4, "address = [\"192.0.2.2/24\"", "4:11: not TOML: `[` is never closed"),
        (4, "address = [\n\"192.0.2.2/24\",\n# more?", "4:11: not TOML: `[` is never closed"),
        (15, "ports = 80\npersistence = { netmask = 24", "16:15: not TOML: `{` is never closed"),
        (15, "ports = 80\npersistence = { netmask = 24]", "16:15: not TOML: `{` is never closed"),
    ] {
        let text = edited(&[(line, broken), (18, "nam = \"rs1\"")]);
        let shift = broken.matches('\n').count();
        let later = format!("{}:1: unknown key `nam` in [[service.real_server]]", 18 + shift);
        assert_eq!(listed(&refused(&text)), [message.to_owned(), later], "{text}");
    }
}

#[test]
fn help_names_the_nearest_key_or_where_it_belongs() {
    for (edits, help) in [
        (&[(2, "role = \"vip\"\nadress = []")], "did you mean `address`?"),
        (&[(2, "role = \"vip\"\nweight = 3")], "`weight` belongs in [[service.real_server]]"),
        (
            &[(2, "role = \"vip\"\nname = \"x\"")],
            "`name` belongs in [router] or [[service]] or [service.sorry_server] or [[service.real_server]]",
        ),
        (&[(2, "role = \"vip\"\nfrobnicate = 3")], "remove it"),
        (&[(15, "ports = 80\nscheduler = \"wlcc\"")], "did you mean \"wlc\"?"),
        (&[(19, "address = \"10.0.0.11\"\nsegment = \"bock\"")], "did you mean \"back\"?"),
        (
            &[(19, "address = \"10.0.0.11\"\nsegment = \"lan\"")],
            "add [segment.lan], or name one that exists",
        ),
        (&[(13, "vip = \"192.0.2.10:80\"")], "the port belongs in the service's `ports`"),
        (&[(13, "vip = \"192.0.2.10/32\"")], "write it without a prefix length"),
        (&[(4, "address = [\"192.0.2.2\"]")], "add the segment's prefix length, for instance /24"),
        (&[(15, "ports = \"90-80\"")], "write \"80-90\""),
        (&[(13, "vip = 192.0.2.10 # web")], "write \"192.0.2.10\""),
        (&[(15, "ports = 80\none_packet = True")], "write true"),
    ] {
        let diagnostics = refused(&edited(edits));
        let helps: Vec<_> = diagnostics.iter().filter_map(|item| item.help.as_deref()).collect();
        assert_eq!(helps, [help], "{diagnostics}");
    }
}

/// No key is known and then not looked at: a date does for none of them.
#[test]
fn every_known_key_is_read() {
    for schema in crate::config::document::SCHEMAS.iter().filter(|schema| !schema.is_root) {
        for key in schema.keys {
            let line = format!("{key} = 1979-05-27");
            let text = match schema.header {
                "[segment.NAME]" => format!("[segment.x]\n{line}"),
                inline @ ("persistence" | "scheduler_options") => {
                    format!("[[service]]\n{inline} = {{ {line} }}")
                }
                "vlan" => format!("[segment.x]\nvlan = {{ {line} }}"),
                "listen" => format!("[[service]]\nlisten = [{{ {line} }}]"),
                "[service.check]" => {
                    let kind = match *key {
                        "kind" => "",
                        "method" | "path" | "host" | "status" | "body" => "kind = \"http\"",
                        "server_name" => "kind = \"tls\"",
                        "verify" | "ca" => "kind = \"https\"",
                        "send" | "expect" => "kind = \"udp\"",
                        "query" | "record" | "rcode" => "kind = \"dns\"",
                        "command" => "kind = \"exec\"",
                        _ => "kind = \"tcp\"",
                    };
                    format!("[[service]]\n[service.check]\n{kind}\n{line}")
                }
                header if header.trim_start_matches('[').starts_with("service.") => {
                    format!("[[service]]\n{header}\n{line}")
                }
                header => format!("{header}\n{line}"),
            };
            let message = format!("`{key}` is a date or time");
            let diagnostics = refused(&text);
            let count = diagnostics.iter().filter(|item| item.message == message).count();
            assert_eq!(count, 1, "{text}\n{diagnostics}");
        }
    }
}

#[test]
fn a_clash_names_the_first_definition() {
    let text =
        format!("{BASE}\n[[service]]\nvip = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\n");
    let diagnostics = refused(&text);
    let first: Vec<_> = diagnostics.iter().map(|item| item.related_line()).collect();
    assert_eq!(first, [Some(15)]);
    let rendered = diagnostics.to_string();
    assert!(rendered.contains("15 | ports = 80\n   |         -- first claimed here"), "{rendered}");
}

#[test]
fn columns_count_characters_whatever_stands_before() {
    for (text, place) in [
        // Tabs, two-byte and four-byte characters, a byte order mark, other line ends.
        ("\t[segment.x]\nrole\t=\t\t7\ntap=\"t\"", (2, 9)),
        ("[segment.x]\ntap = \"t\"\nrole = \"é𝄞\"", (3, 8)),
        ("[segment.x]\ntap = \"é𝄞\"\nrole = \"vip\"", (2, 7)),
        ("segment.x = { \"é𝄞\" = 3, role = \"vip\", tap = \"t\" }", (1, 15)),
        ("segment.x = { role = 'vip', tap = 't', mac = 'é', mtu = 1 }", (1, 46)),
        ("[segment.x]\r\ntap = \"t\"\r\nrole = 7\r\n", (3, 8)),
        ("\u{feff}[segment.x]\nrole = 7\ntap = \"t\"", (2, 8)),
    ] {
        let diagnostics = refused(text);
        let first = diagnostics.iter().next().map(|item| (item.line(), item.column()));
        assert_eq!(first, Some(place), "{text}\n{diagnostics}");
        let quoted = format!("test.toml:{}:{}\n", place.0, place.1);
        assert!(diagnostics.to_string().contains(&quoted), "{diagnostics}");
    }
}

#[test]
fn control_characters_of_the_file_do_not_reach_the_terminal() {
    let text = edited(&[(12, "name = \"\\u001b]0;x\"\n\"\\u001b[2J\" = 1\n\"\\u202e\" = 2")]);
    let rendered = refused(&text).to_string();
    assert!(!rendered.contains(['\u{1b}', '\u{202e}']), "{rendered:?}");
    assert!(rendered.contains("\\u{1b}"), "{rendered}");
}

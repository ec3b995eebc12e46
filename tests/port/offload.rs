//! TAPs with segmentation offload.

use vipr::port::{OpenError, Port, TapConfig, TapPort};
use vipr::wire::{MacAddr, Offload};

use super::packet::{receive_all, super_frame, to, wait_until_running};
use super::support::*;

fn open(tap: &str, bridge: Option<&str>) -> Result<TapPort, OpenError> {
    TapPort::open_with_offload(&TapConfig { tap, bridge, uplink: None, mtu: None })
}

/// A field of what ip(8) says of a TAP.
fn tap_field(name: &str, field: &str) -> bool {
    device(name).unwrap()["linkinfo"]["info_data"][field].as_bool().unwrap()
}

namespaced! {
    fn a_tap_with_headers_is_made_and_removed_like_any_other() {
        let port = open("t0", Some("b0")).unwrap();
        assert!(tap_field("t0", "vnet_hdr") && !tap_field("t0", "persist"));
        assert_eq!(master("t0").as_deref(), Some("b0"));
        drop(port);
        assert_eq!(devices(), [""; 0]);
        // What is found keeps its index, and stays.
        run("ip tuntap add t0 mode tap");
        let before = device("t0").unwrap()["ifindex"].clone();
        drop(open("t0", None).unwrap());
        let port = open("t0", None).unwrap();
        assert_eq!(device("t0").unwrap()["ifindex"], before);
        let busy = open("t0", None).map(|_| ()).unwrap_err();
        assert!(matches!(busy, OpenError::TapBusy { .. }), "{busy}");
        drop(port);
        assert!(tap_field("t0", "persist"));
        // And is plain again for who wants it so.
        let _plain = TapPort::open(&TapConfig { tap: "t0", bridge: None, uplink: None, mtu: None }).unwrap();
        assert!(!tap_field("t0", "vnet_hdr"));
    }
}

namespaced! {
    fn super_frames_pass_whole_where_they_are_welcome_and_cut_where_not() {
        let mut from = open("t0", Some("b0")).unwrap();
        let mut into = open("t1", Some("b0")).unwrap();
        wait_until_running(&from);
        wait_until_running(&into);
        let (large, offload) = super_frame(40_000);
        let source = MacAddr(large[6..12].try_into().unwrap());
        let ours = |port: &mut TapPort| -> Vec<(Vec<u8>, Offload)> {
            let mut frames = receive_all(port);
            frames.retain(|(bytes, _)| bytes[6..12] == source.0);
            frames
        };
        for (wanted, count) in [(false, 28), (true, 1), (false, 28)] {
            into.set_offload(wanted).unwrap();
            from.send(&large, offload).unwrap();
            from.send(&frame(7, 60), Offload::default()).unwrap();
            from.flush().unwrap();
            let received = ours(&mut into);
            assert_eq!(received.len(), count + 1, "welcome: {wanted}");
            let (last, first) = received.split_last().unwrap();
            assert_eq!(mark(&last.0), Some(7));
            if wanted {
                assert!(first[0].0 == large);
                assert_eq!(first[0].1, offload);
            } else {
                let len: usize = first.iter().map(|(bytes, _)| bytes.len() - 54).sum();
                assert_eq!(len, 40_000);
                assert!(first.iter().all(|(bytes, offload)| {
                    offload.is_plain() && bytes.len() <= 1514
                }));
            }
        }
    }
}

namespaced! {
    fn a_plain_port_and_one_with_headers_understand_each_other() {
        let mut plain = TapPort::open(&TapConfig { tap: "t0", bridge: Some("b0"), uplink: None, mtu: None }).unwrap();
        let mut other = open("t1", Some("b0")).unwrap();
        other.set_offload(true).unwrap();
        wait_until_running(&plain);
        wait_until_running(&other);
        let (one, two) = (frame(1, 60), to(MacAddr([2, 0, 0, 0, 0, 9]), frame(2, 1514)));
        plain.send(&one, Offload::default()).unwrap();
        assert!(receive_all(&mut other).contains(&(one, Offload::default())));
        other.send(&two, Offload::default()).unwrap();
        assert!(receive_all(&mut plain).contains(&(two, Offload::default())));
    }
}

//! Scenarios with real programs (nginx, curl, arping, dnsmasq, tcpdump …) and the real binary, in
//! network namespaces. Each is a script in `tests/namespaces/`; `vm/lab.sh` gives it a private
//! environment that the kernel removes whole when the script ends or its time is up.
//!
//! Where namespaces or programs are lacking a scenario is skipped, loudly; with
//! `VIPR_REQUIRE_NAMESPACES=1` that is a failure.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// A scenario that takes longer has failed. The longest takes half a minute on a quiet machine:
/// it waits for a real server to be given up.
const LIMIT: Duration = Duration::from_secs(150);

/// In a guest in user mode each system call costs several others: it takes a minute where the
/// machine has little else to do.
const GUEST_LIMIT: Duration = Duration::from_secs(400);

/// What scenarios use beside the programs the cluster itself needs.
const PROGRAMS: [&str; 11] = [
    "ping",
    "jq",
    "dnsmasq",
    "nft",
    "iptables",
    "ip6tables",
    "arptables",
    "openssl",
    "socat",
    "strace",
    "wrk",
];

macro_rules! scenarios {
    ($($test:ident = $script:literal,)+) => {
        const SCRIPTS: &[&str] = &[$($script),+];

        $(#[test]
        fn $test() {
            run($script);
        })+
    };
}

scenarios! {
    the_cluster_itself_is_one_for_direct_routing = "cluster",
    http_is_balanced_on_two_segments = "http-two-segments",
    http_is_balanced_on_one_segment = "http-one-arm",
    arp_is_answered_for_vips_and_own_addresses_only = "arping",
    a_real_server_that_leaks_is_named_and_repaired_or_kept_out = "arp-guardian",
    a_real_server_that_advertises_the_vip_is_named_and_repaired_or_kept_out = "nd-guardian",
    tags_of_vlans_hide_no_claim = "arp-guard-vlan",
    arp_is_answered_however_much_comes_in = "arp-overload",
    real_servers_are_found_lost_and_found_again = "arp-resolution",
    large_transfers_arrive_whole = "large-transfer",
    what_belongs_to_no_service_is_refused = "reject",
    a_vip_answers_ping_while_it_is_up = "ping",
    udp_is_balanced = "udp",
    what_is_wrong_with_a_real_server_is_named = "doctor",
    what_is_wrong_is_named_on_one_segment_too = "doctor-one-arm",
    a_loop_another_segment_and_faults_of_udp_are_named = "doctor-more",
    what_is_wrong_is_named_over_ipv6_too = "doctor-ipv6",
    what_is_wrong_is_named_over_ipv6_on_one_segment_too = "doctor-ipv6-one-arm",
    real_servers_are_set_up_and_taken_down = "realserver",
    checks_go_the_way_clients_go = "checks",
    checks_and_doctor_do_over_ipv6_what_they_do_over_ipv4 = "checks-ipv6",
    two_ports_are_one_service = "group",
    two_segments_are_vlans_of_one_trunk = "vlan",
    a_sorry_server_is_there_for_those_that_are_not = "sorry",
    a_flood_on_one_segment_does_not_starve_the_other = "flood",
    it_wakes_once_a_burst_and_never_in_vain = "waking",
    what_a_real_server_sends_back_is_a_loop = "loop",
    a_reload_under_load_goes_unnoticed = "reload",
    a_restart_keeps_the_connections = "restart",
    a_storm_of_reloads_under_load_loses_nothing = "reload-storm",
    a_broken_configuration_changes_nothing = "bad-reload",
    what_it_says_agrees_with_what_the_servers_logged = "status",
    a_smaller_mtu_on_the_way_is_told_to_the_client = "mtu",
    a_smaller_mtu_on_the_way_back_is_told_to_the_real_server = "pmtu",
    fragments_arrive_together = "fragments",
    http_over_ipv6_is_balanced_behind_snooping_bridges = "ipv6",
    real_servers_of_ipv6_are_found_lost_and_found_again = "ipv6-resolution",
    a_device_that_is_lost_is_found_again = "device-lost",
    http_is_balanced_on_cards_of_the_host = "packet",
    http_is_balanced_on_cards_of_the_host_by_xdp = "xdp",
    a_running_router_moves_between_taps_and_cards = "attach-reload",
    what_costs_speed_on_a_host_is_changed_and_changed_back = "tune",
    what_was_made_is_removed_and_what_was_found_stays = "cleanup",
    a_card_is_the_uplink_as_long_as_vipr_runs = "uplink",
    a_bad_environment_is_one_clear_line = "errors",
}

/// Where the kernel here has no SCTP (few are built without, but some are), another one has: that
/// of a guest in user mode, if it is installed (`make sctp` sees to that).
const SCTP: &str = "sctp";

#[test]
fn sctp_is_balanced() {
    if fs::read_to_string("/proc/net/protocols").is_ok_and(|text| text.contains("SCTP")) {
        return run(SCTP);
    }
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join("linux.uml").is_file());
    if !found {
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: scenario {SCTP}: this kernel has no SCTP, and there is no linux.uml: make sctp"
        );
        return;
    }
    let mut command = Command::new(root().join("vm/uml/run.sh"));
    command.arg(format!("tests/namespaces/{SCTP}.sh")).current_dir(root());
    command.env("VIPR", env!("CARGO_BIN_EXE_vipr"));
    judge(SCTP, command, GUEST_LIMIT);
}

#[test]
fn every_script_is_a_test() {
    let mut found: Vec<String> = fs::read_dir(root().join("tests/namespaces"))
        .expect("the directory of the scripts")
        .map(|entry| entry.expect("an entry of it").path())
        .filter(|path| path.is_file())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    let mut expected = [SCRIPTS, &[SCTP]].concat();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn run(script: &str) {
    if let Err(missing) = lab_is_possible() {
        assert!(
            std::env::var_os("VIPR_REQUIRE_NAMESPACES").is_none_or(|value| value != "1"),
            "namespace tests are required, but this machine lacks:\n{missing}"
        );
        let lacking = missing.trim_end().replace('\n', "; ");
        // Not by a macro: the test harness would swallow it.
        let _ = writeln!(io::stderr(), "SKIPPED: scenario {script}: lacking {lacking}");
        return;
    }
    judge(script, lab(&["run", &format!("tests/namespaces/{script}.sh")]), LIMIT);
}

/// Runs what runs a scenario, and fails as it fails.
fn judge(script: &str, command: Command, limit: Duration) {
    let output_path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{script}.out"));
    let output = File::create(&output_path).expect("a file for the output");
    let started = Instant::now();
    let ended = run_within(limit, command, output);
    let seconds = started.elapsed().as_secs();
    let text = String::from_utf8_lossy(&fs::read(&output_path).expect("the output")).into_owned();
    match ended {
        Some(status) if status.success() => {}
        Some(status) => {
            let how = status.signal().map_or_else(|| status.to_string(), |s| format!("signal {s}"));
            panic!("scenario {script} failed after {seconds} s ({how}); its output:\n{text}");
        }
        None => panic!("scenario {script} took over {seconds} s; its output:\n{text}"),
    }
}

/// Runs a command with its output in a file; kills it and gives nothing when its time is up.
fn run_within(limit: Duration, mut command: Command, output: File) -> Option<ExitStatus> {
    let errors = output.try_clone().expect("a second handle on the output");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .expect("vm/lab.sh can be started");
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("the state of the child") {
            return Some(status);
        }
        if Instant::now() > deadline {
            // The private environment goes with it.
            child.kill().expect("the child can be killed");
            child.wait().expect("the end of the child");
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// What this machine lacks for the scenarios, as an error.
fn lab_is_possible() -> Result<(), &'static str> {
    static MISSING: OnceLock<String> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let arguments = [&["probe"], PROGRAMS.as_slice()].concat();
        let output = lab(&arguments).output().expect("vm/lab.sh can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("vm/lab.sh"));
    command.args(arguments).current_dir(root()).env("VIPR", env!("CARGO_BIN_EXE_vipr"));
    command
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

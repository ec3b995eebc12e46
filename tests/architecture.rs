//! The shape of the source, enforced: imports point one way, the core names no I/O and no clock,
//! and unsafe code stays in `port/`.
//!
//! A scan of names, not a compiler: comments and literals are blanked out, `use` groups are
//! expanded, and every path in what remains is judged by the folder its file is in.

use std::fs;
use std::path::Path;

/// Each layer with the layers it may name; its own is always among them.
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &["init", "shell", "port", "director", "config", "wire"]),
    ("init", &["shell", "port", "config", "wire"]),
    ("shell", &["port", "director", "config", "wire"]),
    ("port", &["wire"]),
    ("director", &["config", "wire"]),
    ("config", &["wire"]),
    ("wire", &[]),
];

/// The layers without I/O, clock or threads.
const CORE: &[&str] = &["director", "config", "wire"];

/// What the core never names, as the start of a path.
const NOT_IN_CORE: &[&[&str]] = &[
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time"],
    &["std", "*"],
    &["std", "as"],
    &["eprint", "!"],
    &["eprintln", "!"],
    &["print", "!"],
    &["println", "!"],
];

/// Crates that the core never names anything of.
const CRATES_NOT_IN_CORE: &[&str] = &["libc", "mio", "notify", "rustix", "tun_tap"];

/// What the core never names, anywhere in a path.
const CLOCKS: &[&str] = &["SystemTime"];

/// The one layer that may say `unsafe`.
const UNSAFE_LAYER: &str = "port";

#[test]
fn the_source_keeps_its_shape() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut found = Vec::new();
    for file in &files {
        let source = fs::read_to_string(root.join(file)).expect("a source file is readable");
        found.extend(violations(file, &source));
    }
    for (layer, _) in LAYERS {
        let prefix = format!("{layer}/");
        assert!(files.iter().any(|file| file.starts_with(&prefix)), "src/{layer} has no file");
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The names of all `.rs` files below `root`, relative to it, in a fixed order.
fn collect(root: &Path, files: &mut Vec<String>) {
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of src is readable") {
            let path = entry.expect("an entry of src is readable").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("it is below the root");
                files.push(name.to_str().expect("names are UTF-8").to_owned());
            }
        }
    }
    files.sort();
}

/// Traits by which a library takes and gives bytes in memory: naming them is no I/O.
const EXCEPTED: [(&str, &[&str]); 2] = [
    ("director/probes/https.rs", &["std", "io", "Read"]),
    ("director/probes/https.rs", &["std", "io", "Write"]),
];

/// What is wrong with one file of `src/`, as `FILE:LINE: REASON`.
fn violations(file: &str, source: &str) -> Vec<String> {
    let mut parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if parts.last() == Some(&"mod") {
        parts.pop();
    }
    // `lib.rs` and `main.rs` belong to no layer; so would a file beside them.
    let own = if file.contains('/') { parts[0] } else { "" };
    let allowed = LAYERS.iter().find(|(layer, _)| *layer == own).map(|(_, allowed)| *allowed);
    let mut found = Vec::new();
    if allowed.is_none() && !matches!(file, "lib.rs" | "main.rs") {
        found.push(format!("{file}: belongs to no layer"));
    }
    for path in paths(&tokens(&blanked(source))) {
        let at = format!("{file}:{}", path.line);
        let names: Vec<&str> = path.names.iter().map(String::as_str).collect();
        if let (Some(allowed), Some(target)) = (allowed, layer_named(&names, parts.len()))
            && target != own
            && !allowed.contains(&target)
        {
            found.push(format!("{at}: {own} must not name {target}"));
        }
        let is_excepted = EXCEPTED.iter().any(|(of, traits)| *of == file && names == *traits);
        if CORE.contains(&own)
            && !is_excepted
            && (NOT_IN_CORE.iter().any(|forbidden| names.starts_with(forbidden))
                || (names.len() > 1 && CRATES_NOT_IN_CORE.contains(&names[0]))
                || CLOCKS.iter().any(|clock| names.contains(clock)))
        {
            found.push(format!("{at}: the core must not name {}", names.join("::")));
        }
        if names == ["unsafe"] && own != UNSAFE_LAYER {
            found.push(format!("{at}: unsafe code belongs to {UNSAFE_LAYER}/"));
        }
    }
    // A `use` group may say the same more than once.
    found.dedup();
    found
}

/// The layer that a path leads to, if it leaves the crate's root by one; `*` for all of them.
/// `depth` is how many modules below the root the file is.
fn layer_named<'a>(names: &[&'a str], depth: usize) -> Option<&'a str> {
    let supers = names.iter().take_while(|name| **name == "super").count();
    let next = match names {
        ["crate", next, ..] => *next,
        // From an inner module it takes more: then what follows is not a layer's name.
        _ if supers >= depth => *names.get(supers)?,
        _ => return None,
    };
    let is_layer = LAYERS.iter().any(|(layer, _)| *layer == next);
    (is_layer || (names[0] == "crate" && matches!(next, "*" | "as"))).then_some(next)
}

/// A path in the source, `use` groups expanded. What follows a single name is part of it where
/// it matters: `as` if the name is changed, `!` if it is a macro's.
#[derive(Debug, PartialEq)]
struct NamedPath {
    line: usize,
    names: Vec<String>,
}

#[derive(Debug, PartialEq)]
struct Token {
    line: usize,
    text: String,
}

/// The source with comments, strings and character literals blanked out, lines kept.
fn blanked(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut output = String::with_capacity(source.len());
    let mut at = 0;
    while at < characters.len() {
        let len = opaque_len(&characters[at..], at.checked_sub(1).map(|before| characters[before]));
        for &character in &characters[at..at + len] {
            output.push(if character == '\n' { '\n' } else { ' ' });
        }
        at += len;
        if len == 0 {
            output.push(characters[at]);
            at += 1;
        }
    }
    output
}

/// The length of the comment or literal that `rest` begins with; 0 if it begins with code.
fn opaque_len(rest: &[char], before: Option<char>) -> usize {
    let until = |from: usize, end: &[char]| {
        (from..rest.len()).find(|&at| rest[at..].starts_with(end)).unwrap_or(rest.len())
    };
    match rest {
        ['/', '/', ..] => until(2, &['\n']),
        ['/', '*', ..] => block_comment_len(rest),
        ['"', ..] => quoted_len(rest, '"'),
        ['r', '"' | '#', ..] if !before.is_some_and(is_word) || before == Some('b') => {
            let hashes = rest[1..].iter().take_while(|character| **character == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return 0; // A raw identifier.
            }
            let end: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
            (until(2 + hashes, &end) + end.len()).min(rest.len())
        }
        // A character, not a lifetime.
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted_len(rest, '\''),
        _ => 0,
    }
}

/// Block comments nest.
fn block_comment_len(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_len(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Words, `::`, and every other visible character by itself.
fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = if is_word(first) {
                rest.find(|character| !is_word(character)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { line: index + 1, text: rest[..len].to_owned() });
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

/// The keywords that a path with a leading `::` can follow.
const KEYWORDS: &[&str] =
    &["as", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use", "where"];

/// Every path among the tokens; a single name is one too.
fn paths(tokens: &[Token]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].text.starts_with(is_word) {
            at = expand(tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the path at `at`, prefixed; returns where it ends.
fn expand(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<NamedPath>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let line = tokens[at].line;
    let mut names = prefix.to_vec();
    loop {
        names.push(tokens[at].text.clone());
        at += 1;
        // Behind a keyword, `::` begins a path: `use ::std::io`.
        if text(at) != "::" || KEYWORDS.contains(&text(at - 1)) {
            break;
        }
        match text(at + 1) {
            "{" => {
                at += 2;
                while !matches!(text(at), "}" | "") {
                    if text(at) == "*" || text(at).starts_with(is_word) {
                        at = expand(tokens, at, &names, found);
                    } else {
                        at += 1;
                    }
                }
                return at + 1;
            }
            next if next == "*" || next.starts_with(is_word) => at += 1,
            _ => break,
        }
    }
    if names.len() == 1 && matches!(text(at), "as" | "!") {
        names.push(text(at).to_owned());
    }
    found.push(NamedPath { line, names });
    at
}

#[test]
fn imports_against_the_grain_are_found() {
    for (file, source, expected) in [
        (
            "wire/packet.rs",
            "use crate::config::Snapshot;",
            "wire/packet.rs:1: wire must not name config",
        ),
        (
            "wire/packet.rs",
            "\n\nfn f() { crate::director::Instant::ZERO; }",
            "wire/packet.rs:3: wire must not name director",
        ),
        (
            "config/mod.rs",
            "use crate::{\n    wire::MacAddr,\n    director::{self, Id},\n};",
            "config/mod.rs:3: config must not name director",
        ),
        (
            "config/mod.rs",
            "use super::director::Id;",
            "config/mod.rs:1: config must not name director",
        ),
        (
            "wire/packet.rs",
            "use super::super::port::Batch;",
            "wire/packet.rs:1: wire must not name port",
        ),
        (
            "director/scheduler/wrr.rs",
            "use super::super::super::shell;",
            "director/scheduler/wrr.rs:1: director must not name shell",
        ),
        (
            "director/mod.rs",
            "use crate::port::Batch;",
            "director/mod.rs:1: director must not name port",
        ),
        (
            "port/tap.rs",
            "use crate::director::SegmentId;",
            "port/tap.rs:1: port must not name director",
        ),
        ("port/tap.rs", "use crate::config;", "port/tap.rs:1: port must not name config"),
        ("shell/mod.rs", "use crate::cli::Failure;", "shell/mod.rs:1: shell must not name cli"),
        ("wire/packet.rs", "use crate::*;", "wire/packet.rs:1: wire must not name *"),
        ("wire/packet.rs", "use crate as all;", "wire/packet.rs:1: wire must not name as"),
        (
            "wire/packet.rs",
            "macro_rules! m { () => { $crate::port::Batch } }",
            "wire/packet.rs:1: wire must not name port",
        ),
        ("helpers.rs", "", "helpers.rs: belongs to no layer"),
        ("util/mod.rs", "", "util/mod.rs: belongs to no layer"),
    ] {
        assert_eq!(violations(file, source), [expected], "{source}");
    }
}

#[test]
fn io_and_clocks_in_the_core_are_found() {
    for (source, named) in [
        ("use std::io;", "std::io"),
        ("use std::{fmt, fs::File};", "std::fs::File"),
        ("use ::std::thread;", "std::thread"),
        ("fn f(a: std::net::IpAddr) {}", "std::net::IpAddr"),
        ("use std::time::Duration;", "std::time::Duration"),
        ("fn f() { std::process::exit(1) }", "std::process::exit"),
        ("use std::*;", "std::*"),
        ("use std as s;", "std::as"),
        ("use {mio::Poll, std::fmt};", "mio::Poll"),
        ("use mio as m;", "mio::as"),
        ("use notify::Watcher;", "notify::Watcher"),
        ("use tun_tap::Iface;", "tun_tap::Iface"),
        ("fn f() -> libc::c_int { 0 }", "libc::c_int"),
        ("use rustix::fs;", "rustix::fs"),
        ("fn f(now: SystemTime) {}", "SystemTime"),
        ("fn f() { println!(\"x\") }", "println::!"),
    ] {
        for core in CORE {
            let file = format!("{core}/x.rs");
            let expected = format!("{file}:1: the core must not name {named}");
            assert_eq!(violations(&file, source), [expected], "{source}");
        }
        assert_eq!(violations("shell/x.rs", source), [] as [&str; 0], "{source}");
    }
}

#[test]
fn unsafe_code_outside_port_is_found() {
    let source = "fn f() {\n    unsafe { g() }\n}";
    for layer in ["cli", "shell", "director", "config", "wire"] {
        let file = format!("{layer}/x.rs");
        let expected = format!("{file}:2: unsafe code belongs to port/");
        assert_eq!(violations(&file, source), [expected]);
    }
    assert_eq!(violations("main.rs", source), ["main.rs:2: unsafe code belongs to port/"]);
    assert_eq!(violations("port/tap.rs", source), [] as [&str; 0]);
}

#[test]
fn what_is_allowed_is_not_found() {
    for (file, source) in [
        ("main.rs", "fn main() { vipr::cli::main() }"),
        ("cli/run.rs", "use crate::{config, director, port, shell, wire};"),
        ("shell/mod.rs", "use crate::{config::Snapshot, director::Director, port::Port};"),
        ("director/mod.rs", "use crate::config::Snapshot; use crate::wire::{Frame, MacAddr};"),
        (
            "config/mod.rs",
            "use crate::wire::MacAddr; pub(crate) struct A(pub(in crate::config) u8);",
        ),
        ("port/batch.rs", "use crate::wire::Frame; use std::io;"),
        (
            "wire/packet.rs",
            "use super::{MacAddr, arp::ArpPacket}; mod tests { use super::super::samples; }",
        ),
        (
            "wire/packet.rs",
            "use core::net::Ipv4Addr; use core::time::Duration; use std::sync::Arc;",
        ),
        ("director/event.rs", "fn notify(&self) { self.notify(); let libc = 1; }"),
        ("wire/packet.rs", "// use crate::port;\n/* unsafe /* std::io */ std::fs */"),
        ("wire/packet.rs", "/// ```\n/// use std::io;\n/// ```\nfn f() {}"),
        (
            "wire/packet.rs",
            "const A: &str = \"use crate::port; \\\" unsafe\"; const B: char = '\"';",
        ),
        (
            "wire/packet.rs",
            "const A: &str = r#\"std::io \" unsafe\"#; const B: &[u8] = br\"mio::\";",
        ),
        ("wire/packet.rs", "fn f<'a>(a: &'a str) -> &'a str { a } const C: char = '\\'';"),
    ] {
        assert_eq!(violations(file, source), [] as [&str; 0], "{source}");
    }
}

#[test]
fn code_after_a_literal_or_comment_is_still_read() {
    for before in
        ["'\"';", "\"\\\\\";", "r\"\\\";", "b'\\'';", "/* \" */", "'a: loop {}", "r#\"\"#;"]
    {
        let source = format!("{before} use std::io;");
        assert_eq!(violations("wire/x.rs", &source).len(), 1, "{source}");
    }
}

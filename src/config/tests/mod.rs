//! The configuration as a whole: text in, snapshot or diagnostics out.

mod accepted;
mod checks;
mod mistakes;
mod robustness;

use super::{Diagnostics, Snapshot, parse};

/// A configuration that is in order; rows of the tests change lines of it.
const BASE: &str = r#"[segment.front]
role = "vip"
tap = "vipr-front"
address = ["192.0.2.2/24"]

[segment.back]
role = "backend"
tap = "vipr-back"
address = ["10.0.0.1/24"]

[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
ports = 80

[[service.real_server]]
name = "rs1"
address = "10.0.0.11"
"#;

/// [`BASE`] with other text, of whatever length, in place of these lines.
fn edited(edits: &[(usize, &str)]) -> String {
    let mut lines: Vec<&str> = BASE.lines().collect();
    for (line, text) in edits {
        lines[line - 1] = text;
    }
    lines.join("\n")
}

fn accepted(text: &str) -> Snapshot {
    parse(text, "test.toml").unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}"))
}

fn refused(text: &str) -> Diagnostics {
    parse(text, "test.toml").expect_err(text)
}

/// `line:column: message` of each.
fn listed(diagnostics: &Diagnostics) -> Vec<String> {
    let line =
        |item: &super::Diagnostic| format!("{}:{}: {}", item.line(), item.column(), item.message);
    diagnostics.iter().map(line).collect()
}

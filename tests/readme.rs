//! What the documentation shows is valid: every configuration in the README, and those of the demo.

use std::fs;
use std::path::Path;

#[test]
fn every_configuration_in_the_readme_is_valid() {
    let readme = read("README.md");
    let blocks: Vec<&str> = readme
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert!(!blocks.is_empty(), "the README shows no configuration");
    for block in blocks {
        assert_valid(block, "README.md");
    }
}

#[test]
fn the_configurations_of_the_demo_are_valid() {
    for file in ["vm/demo-two-segments.toml", "vm/demo-one-arm.toml"] {
        assert_valid(&read(file), file);
    }
}

fn assert_valid(text: &str, origin: &str) {
    if let Err(diagnostics) = vipr::config::parse(text, origin) {
        panic!("{diagnostics}\nin:\n{text}");
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file)
}

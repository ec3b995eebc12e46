//! What the documentation shows is valid: every configuration in the README, and those of the demo;
//! and what its table of features says is shown by a test is.

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

/// Each row of the table of features names what shows it, and that is there.
#[test]
fn every_feature_names_the_test_that_shows_it() {
    let (readme, makefile) = (read("README.md"), read("Makefile"));
    let section = readme.split("### Feature by feature\n").nth(1).expect("the table's heading");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
    let rows: Vec<&str> = rows.skip(1).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [_, _, shown_by] = cells[..] else { panic!("three columns: {row}") };
        let links: Vec<&str> = shown_by
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().expect("a link has an end"))
            .collect();
        assert!(!links.is_empty(), "nothing shows it: {row}");
        for path in links {
            assert!(root().join(path).is_file(), "{path}: no such file, in: {row}");
            let text = read(path);
            let is_test = path.ends_with(".sh") || path.starts_with("tests/oracle/");
            let has_test =
                is_test || ["#[test]", "proptest!", "assert"].iter().any(|it| text.contains(it));
            assert!(has_test, "{path}: no test in it");
        }
        for target in shown_by.split("`make ").skip(1) {
            let target = target.split('`').next().expect("a word");
            assert!(makefile.contains(&format!("\n{target}: ")), "make {target}: no such target");
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn assert_valid(text: &str, origin: &str) {
    if let Err(diagnostics) = vipr::config::parse(text, origin) {
        panic!("{diagnostics}\nin:\n{text}");
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect(file)
}

//! `docs/reliability.md`: no promise without a test.

use std::path::Path;

/// The names `file::test` that a line has between backticks.
fn tests(line: &str) -> Vec<(&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect()
}

#[test]
fn every_promise_names_tests_that_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let (_, rest) = page.split_once("| kept by |\n|---|---|---|\n").unwrap();
    let promises: Vec<&str> = rest.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(promises.len() >= 15, "{} promises", promises.len());
    for promise in promises {
        let names = tests(promise);
        assert!(!names.is_empty(), "{promise}");
        for (file, test) in names {
            let source = std::fs::read_to_string(root.join(format!("tests/integration/{file}.rs"))).unwrap();
            assert!(source.contains(&format!("#[test]\nfn {test}()")), "{file}::{test}");
        }
    }
}

//! `docs/security.md` and `docs/operating.md`: the tests that they name are there.

use std::fs;
use std::path::Path;

/// The tests that `text` names as `file::test`, in backquotes.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"))
}

#[test]
fn every_test_that_they_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut n_named = 0;
    for document in ["security.md", "operating.md"] {
        for (file, test) in named(&fs::read_to_string(root.join("docs").join(document)).unwrap()) {
            let source = fs::read_to_string(root.join(format!("tests/integration/{file}.rs"))).unwrap_or_default();
            assert!(source.contains(&format!("#[test]\nfn {test}()")), "{document} names {file}::{test}");
            n_named += 1;
        }
    }
    assert!(n_named >= 35, "{n_named}");
}

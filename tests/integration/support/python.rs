//! Python with the packages that clients use, from the environment that `script/setup test` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter.
#[track_caller]
pub(crate) fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/python/bin/python");
    assert!(python.exists(), "{} is missing; script/setup test installs it", python.display());
    python
}

/// What a script of `tests/python` prints; it must succeed.
#[track_caller]
pub(crate) fn python_script(script: &str, arguments: &[&PathBuf]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let output = Command::new(python()).arg(&script).args(arguments).output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{}: {stdout}{stderr}", script.display());
    stdout
}

//! The command line: help, version, roles and exit codes.

use std::process::Output;

use crate::support::ridgeline;

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let command = &mut ridgeline(arguments);
    let Output { status, stdout, stderr } = command.env("ROCKET_DATA_DIR", "/nonexistent/ridgeline").output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn help_and_version_go_to_standard_output() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["serve", "worker", "Rocket.toml", "ROCKET_CONFIG", "DATABASE_URL"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for role in ["serve", "worker"] {
        let (code, help, _) = run(&[role, "--help"]);
        assert!(code == Some(0) && help.contains("Usage: ridgeline"), "{help}");
    }
    assert_eq!(run(&["--version"]), (Some(0), format!("ridgeline {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

#[test]
fn wrong_arguments_end_with_2_and_usage() {
    for arguments in [&["train-all"][..], &["serve", "--fast"], &["worker", "extra"]] {
        let (code, _, stderr) = run(arguments);
        assert!(code == Some(2) && stderr.contains("Usage:"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_worker_without_a_database_says_what_to_configure() {
    let (code, log, _) = run(&["worker"]);
    assert_eq!(code, Some(1));
    for word in ["database_url", "DATABASE_URL", "ridgeline serve", "/nonexistent/ridgeline"] {
        assert!(log.contains(word), "{word}: {log}");
    }
}

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
    let (service, client) = help.split_once("The client of a running service:").unwrap();
    assert!(
        service.contains("  worker    Train queued models") && client.contains("  train     Train on a CSV"),
        "{help}"
    );
    for role in ["serve", "worker", "train", "models"] {
        let (code, help, _) = run(&[role, "--help"]);
        assert!(code == Some(0) && help.contains("Usage: ridgeline"), "{help}");
    }
    assert_eq!(run(&["--version"]), (Some(0), format!("ridgeline {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

#[test]
fn wrong_arguments_end_with_2_and_what_is_wrong() {
    for arguments in [
        &["train-all"][..],
        &["serve", "--fast"],
        &["worker", "extra"],
        &["train"],
        &["train", "a.csv"],
        &["train", "--target", "y"],
        &["train", "a.csv", "--dataset", "1", "--target", "y"],
        &["train", "a.csv", "--target", "y", "--l2", "1,x"],
        &["train", "a.csv", "--target", "y", "--loss", "median"],
        &["train", "a.csv", "--target", "y", "--fold-column", "f", "--seed", "1"],
        &["predict", "1"],
        &["predict", "one", "a.csv"],
        &["delete"],
        &["delete", "1", "--dataset", "1"],
        &["export", "1", "--format", "pmml"],
        &["models", "--server", "localhost:8000"],
        &["models", "--server", "ftp://localhost"],
        &["models", "--server", "http://user:secret@localhost"],
    ] {
        let (code, _, stderr) = run(arguments);
        assert!(code == Some(2) && stderr.contains("--help"), "{arguments:?}: {stderr}");
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

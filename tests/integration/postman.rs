//! The Postman collection, run from top to bottom as a user would.

use std::path::Path;
use std::process::Command;

use crate::support::{Database, Service, new_key};

/// Runs the collection against a service, with a key where one is needed.
fn run(service: &Service, key: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let newman = root.join("target/tools/bin/newman");
    let folder = root.join("tests/postman");
    let output = Command::new(&newman)
        .arg("run")
        .arg(folder.join("ridgeline.postman_collection.json"))
        .arg("--environment")
        .arg(folder.join("local.postman_environment.json"))
        .args(["--env-var", &format!("base_url={}", service.url("")), "--color", "off"])
        .args(["--env-var", &format!("api_key={key}")])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; script/setup test installs it", newman.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_collection_passes_from_top_to_bottom() {
    let database = Database::new();
    run(&Service::start(&database), "");
}

#[test]
fn the_collection_passes_with_a_key() {
    let database = Database::new();
    let key = new_key(&database, "postman");
    run(&Service::start(&database), &key);
}

//! The Postman collection, run from top to bottom as a user would.

use std::path::Path;
use std::process::Command;

use crate::support::{Database, Service};

#[test]
fn the_collection_passes_from_top_to_bottom() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let newman = root.join("target/tools/bin/newman");
    let database = Database::new();
    let service = Service::start(&database);
    let folder = root.join("tests/postman");
    let output = Command::new(&newman)
        .arg("run")
        .arg(folder.join("ridgeline.postman_collection.json"))
        .arg("--environment")
        .arg(folder.join("local.postman_environment.json"))
        .args(["--env-var", &format!("base_url={}", service.url("")), "--color", "off"])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; script/setup test installs it", newman.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

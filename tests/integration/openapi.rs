//! The description of the API: it can be had and looked at, and the service keeps to it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Database, Folder, Service, Settings, new_key};

#[test]
fn the_description_and_the_index_are_there_without_a_key() {
    let database = Database::new();
    let _key = new_key(&database, "somebody");
    let service = Service::without_workers(&database);
    service.get("/models").error(401);
    let document = service.get("/openapi.json").ok(200);
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let calls = service.get("/").ok(200)["calls"].clone();
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| *path != "/docs/{file}") {
        for (method, operation) in item.as_object().unwrap() {
            assert_eq!(calls[format!("{} {path}", method.to_uppercase())], operation["summary"], "{method} {path}");
        }
    }
}

#[test]
fn the_page_needs_nothing_but_the_service() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let page = service.get("/docs");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
    assert!(!page.body.contains("://"), "{}", page.body);
    let mut links = Vec::new();
    for attribute in ["href=\"", "src=\""] {
        links.extend(page.body.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()));
    }
    links.retain(|link| *link != "data:,");
    links.sort_unstable();
    assert_eq!(links, ["docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "openapi.json"]);
    for link in links {
        let file = service.get(&format!("/{link}"));
        assert!(file.status == 200 && !file.body.is_empty(), "{link}: {file:?}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        let content_type = match link.rsplit('.').next().unwrap() {
            "js" => "text/javascript",
            "css" => "text/css; charset=utf-8",
            _ => "application/json",
        };
        assert_eq!(file.header("content-type"), content_type, "{link}");
    }
    assert!(service.get("/docs/swagger-ui-bundle.js").body.contains("SwaggerUIBundle"));
    for absent in ["/docs/x.js", "/docs/..%2f..%2fetc%2fpasswd", "/docs/index.html", "/docs/a/b"] {
        service.get(absent).error(404);
    }
}

#[test]
fn a_hostile_client_finds_nothing_that_the_description_does_not_say() {
    let database = Database::new();
    let keys = ["one", "two"].map(|name| (name, new_key(&database, name)));
    let service = Settings::new(&database.url).set("ROCKET_TRAINING_LIMIT_SECONDS", 10).serve();
    let folder = Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let header = |key: &str| json!([{"name": "Authorization", "value": format!("Bearer {key}")}]);
    let clients = keys.map(|(name, key)| json!({"name": name, "fixedHeaders": header(&key)}));
    let file = folder.0.join("keys.json");
    std::fs::write(&file, json!({"auth": clients}).to_string()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/tools/python/bin/schemathesis");
    let output = Command::new(&program)
        .arg("--config-file")
        .arg(root.join("tests/schemathesis/schemathesis.toml"))
        .args(["run", &service.url("/openapi.json"), "--checks", "all"])
        .env("SCHEMATHESIS_HOOKS", root.join("tests/schemathesis/hooks.py"))
        .env("KEYS", &file)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&folder.0)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; script/setup test installs it", program.display()));
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{stdout}{stderr}");
    // It has really trained and predicted, not only been refused.
    let log = service.process.log();
    for words in [": trained in ", "/predict 200 in", "/infer 200 in", "POST /datasets 201 in"] {
        assert!(log.contains(words), "never {words:?}\n{stdout}");
    }
    assert!(!log.contains(" ERROR "), "{stdout}");
}

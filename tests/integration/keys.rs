//! API keys: how they are made, what they open, and to whom what belongs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Database, Folder, Process, Reply, Server, Service, Settings, example, ridgeline, wait_until, with,
};

/// Runs `ridgeline key ..` and returns its exit code, standard output and standard error.
fn key(variable: (&str, &str), arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = ridgeline(&[&["key"], arguments].concat());
    let output = command.env(variable.0, variable.1).output().unwrap();
    let [out, log] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), out, log)
}

/// What `ridgeline key ..` prints when it succeeds.
#[track_caller]
fn done(url: &str, arguments: &[&str]) -> String {
    let (code, out, log) = key(("DATABASE_URL", url), arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {log}");
    out.trim_end().to_owned()
}

/// A client of `service` with a key.
struct Client<'a> {
    service: &'a Service,
    bearer: String,
}

impl<'a> Client<'a> {
    fn new(service: &'a Service, key: &str) -> Self {
        Self { service, bearer: format!("Bearer {key}") }
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let headers = [("Authorization", self.bearer.as_str()), ("Content-Type", "application/json")];
        self.service.send(method, path, &headers, body.map(Value::to_string).unwrap_or_default().as_bytes())
    }

    #[track_caller]
    fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None)
    }

    #[track_caller]
    fn submit(&self) -> i64 {
        self.send("POST", "/train", Some(&example())).ok(202)["model_id"].as_i64().unwrap()
    }

    fn ids(&self) -> Vec<i64> {
        let list = self.get("/models").ok(200);
        list["models"].as_array().unwrap().iter().map(|model| model["model_id"].as_i64().unwrap()).collect()
    }
}

/// Every call that is somebody's, those from the fifth on about the model `id`, or the dataset of the same number.
fn calls(id: i64) -> [(&'static str, String, Option<Value>); 11] {
    [
        ("GET", "/models".to_owned(), None),
        ("POST", "/train".to_owned(), Some(example())),
        ("GET", "/datasets".to_owned(), None),
        ("POST", "/datasets".to_owned(), Some(json!({"data": "a\n1\n"}))),
        ("GET", format!("/dataset/{id}"), None),
        ("POST", "/train".to_owned(), Some(with(example(), json!({"data": null, "dataset_id": id})))),
        ("DELETE", format!("/dataset/{id}"), None),
        ("GET", format!("/model/{id}"), None),
        ("POST", format!("/model/{id}/predict"), Some(json!({"data": "b,c\n1,2\n"}))),
        ("POST", format!("/model/{id}/cancel"), Some(json!({}))),
        ("DELETE", format!("/model/{id}"), None),
    ]
}

#[test]
fn without_keys_the_service_serves_this_machine_alone_and_says_so() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    service.process.expect_log("there is no API key: everybody on this machine may call, and nobody else");
    service.submit(&example());
    for address in ["0.0.0.0", "::"] {
        let settings = [("DATABASE_URL", database.url.as_str()), ("ROCKET_PORT", "0"), ("ROCKET_ADDRESS", address)];
        let (code, log) = Process::spawn(ridgeline(&["serve"]).envs(settings)).outcome();
        assert_eq!(code, Some(1), "{log}");
        let sentence = format!("address is {address}, but there is no API key, so that everybody who reaches it");
        assert!(log.contains(&sentence) && log.contains("ridgeline key add NAME"), "{log}");
    }
}

#[test]
fn with_a_key_the_service_listens_anywhere_and_is_not_opened_by_the_loss_of_all_keys() {
    let database = Database::new();
    let key = done(&database.url, &["add", "first"]);
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_ADDRESS", "0.0.0.0");
    let service = settings.serve();
    service.process.expect_log("API keys are in use");
    let client = Client::new(&service, &key);
    client.submit();
    // The figures are of everybody's jobs: nothing for the network.
    service.get("/metrics").error(401);
    assert_eq!(client.get("/metrics").status, 200);
    database.execute("DELETE FROM models; DELETE FROM datasets; DELETE FROM api_keys");
    wait_until("the key is refused", || client.get("/models").status == 401);
    service.get("/models").error(401);
}

#[test]
fn the_first_key_closes_a_running_service_and_revoking_all_does_not_open_it() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let old = service.submit(&example());
    let key = done(&database.url, &["add", "first"]);
    let start = Instant::now();
    wait_until("a key is needed", || service.get("/models").status == 401);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let client = Client::new(&service, &key);
    client.get(&format!("/model/{old}")).error(404);
    client.get("/models").ok(200);

    done(&database.url, &["revoke", "first"]);
    let start = Instant::now();
    wait_until("the key is refused", || client.get("/models").status == 401);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    service.get("/models").error(401);
    drop(service);
    let service = Service::without_workers(&database);
    service.get("/models").error(401);
    assert_eq!(service.get("/health/ready").status, 200);
}

#[test]
fn what_belongs_to_another_key_does_not_exist() {
    let database = Database::new();
    let keys = ["one", "two"].map(|name| done(&database.url, &["add", name]));
    let service = Service::without_workers(&database);
    let [one, two] = keys.each_ref().map(|key| Client::new(&service, key));
    let [a, b, c] = [one.submit(), two.submit(), one.submit()];
    assert_eq!((one.ids(), two.ids()), (vec![c, a], vec![b]));
    assert_eq!(two.get(&format!("/model/{b}")).ok(200)["queue_position"], 2, "jobs of others are counted");
    for (method, path, body) in &calls(a)[4..] {
        let error = two.send(method, path, body.as_ref()).error(404);
        let noun = if path.starts_with("/model/") { "model" } else { "dataset" };
        assert_eq!(error, format!("there is no {noun} {a}"), "{method} {path}");
    }
    assert_eq!(two.get("/datasets").ok(200)["datasets"].as_array().unwrap().len(), 1);
    assert_eq!(one.get(&format!("/model/{a}")).ok(200)["status"], "queued");
    // A worker asks for nobody's key.
    let _worker = Settings::new(&database.url).worker();
    wait_until("all are trained", || {
        [(&one, a), (&two, b), (&one, c)]
            .iter()
            .all(|(client, id)| client.get(&format!("/model/{id}")).ok(200)["status"] == "trained")
    });
    two.send("POST", &format!("/model/{a}/predict"), Some(&json!({"data": "b,c\n1,2\n"}))).error(404);
    one.send("POST", &format!("/model/{a}/predict"), Some(&json!({"data": "b,c\n1,2\n"}))).ok(200);
    assert_eq!(two.get("/models?status=trained").ok(200)["models"].as_array().unwrap().len(), 1);
    assert_eq!(one.send("DELETE", &format!("/model/{a}"), None).status, 204);
}

#[test]
fn a_call_without_a_known_key_is_401_and_does_nothing() {
    let database = Database::new();
    let key = done(&database.url, &["add", "only"]);
    let other = Database::new();
    let foreign = done(&other.url, &["add", "only"]);
    let service = Service::without_workers(&database);
    let id = Client::new(&service, &key).submit();
    let stored = database.stored_rows();
    let cut = &key[..key.len() - 1];
    let headers: [&[(&str, &str)]; 10] = [
        &[],
        &[("Authorization", "")],
        &[("Authorization", "Bearer")],
        &[("Authorization", "Bearer ")],
        &[("Authorization", &key)],
        &[("Authorization", &format!("Basic {key}"))],
        &[("Authorization", &format!("Bearer {foreign}"))],
        &[("Authorization", &format!("Bearer {cut}"))],
        &[("Authorization", &format!("Bearer {}", key.replacen("_1_", "_2_", 1)))],
        &[("Authorization", &format!("Bearer {key}")), ("Authorization", &format!("Bearer {key}"))],
    ];
    for headers in headers {
        for (method, path, body) in calls(id) {
            let headers = [headers, &[("Content-Type", "application/json")]].concat();
            let body = body.map(|body| body.to_string()).unwrap_or_default();
            let reply = service.send(method, &path, &headers, body.as_bytes());
            let error = reply.error(401);
            assert!(error.contains("API key") && !error.contains("_1_"), "{error}");
            assert_eq!(reply.json()["code"], "unauthorized");
            assert!(reply.header("www-authenticate").starts_with("Bearer"), "{reply:?}");
        }
    }
    assert_eq!(database.stored_rows(), stored);
    // The scheme is case-insensitive, and some calls are everybody's.
    let reply = service.send("GET", &format!("/model/{id}"), &[("Authorization", &format!("bEARER  {key}"))], b"");
    assert_eq!(reply.ok(200)["status"], "queued");
    for path in ["/", "/health/live", "/health/ready"] {
        service.get(path).ok(200);
    }
    assert_eq!(service.get("/metrics").status, 200, "on a loopback address");
    service.get("/nope").error(404);
    service.get("/train").error(405);
}

#[test]
fn a_key_is_printed_once_and_neither_stored_nor_logged() {
    let database = Database::new();
    let (code, out, log) = key(("DATABASE_URL", &database.url), &["add", "printed"]);
    assert_eq!(code, Some(0));
    let text = out.strip_suffix('\n').unwrap();
    let secret = text.strip_prefix("ridgeline_1_").unwrap();
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    assert!(log.contains("shown this once") && !log.contains(secret), "{log}");

    let mut service = Settings::new(&database.url).set("ROCKET_LOG_LEVEL", "trace").serve();
    let client = Client::new(&service, text);
    client.submit();
    client.get("/model/x").error(404);
    Client::new(&service, &text.replace("_1_", "_9_")).get("/models").error(401);
    wait_until("the use is noted", || database.value("SELECT last_used_at IS NOT NULL FROM api_keys") == "true");
    let list = done(&database.url, &["list"]);
    assert!(list.contains("printed") && !list.contains(secret), "{list}");
    service.process.stop();
    assert!(!service.process.log().contains(secret), "{}", service.process.log());

    let everything = "SELECT string_agg(row::text, '') FROM (SELECT k::text AS row FROM api_keys k) rows";
    assert!(!database.value(everything).contains(secret));
    let hash = format!("SELECT hash = sha256(convert_to('{secret}', 'UTF8')) FROM api_keys");
    assert_eq!(database.value(&hash), "true");
}

#[test]
fn names_are_unique_among_the_keys_in_use_and_rotation_keeps_what_belongs_to_a_key() {
    let database = Database::new();
    let url = database.url.as_str();
    let first = done(url, &["add", "nightly"]);
    for (arguments, sentence) in [
        (&["add", "nightly"][..], "in use already"),
        (&["add", ""], "1 to 100 characters"),
        (&["add", &"x".repeat(101)], "1 to 100 characters"),
        (&["add", "a\nb"], "control character"),
        (&["revoke", "other"], "there is no key \"other\""),
        (&["rotate", "other"], "there is no key \"other\""),
    ] {
        let (code, out, log) = key(("DATABASE_URL", url), arguments);
        assert!(code == Some(1) && out.is_empty() && log.contains(sentence), "{arguments:?}: {log}");
    }
    let service = Service::without_workers(&database);
    let id = Client::new(&service, &first).submit();
    let second = done(url, &["rotate", "nightly"]);
    assert!(second.starts_with("ridgeline_1_") && second != first);
    wait_until("the old secret is refused", || Client::new(&service, &first).get("/models").status == 401);
    assert_eq!(Client::new(&service, &second).ids(), [id]);

    done(url, &["revoke", "nightly"]);
    let third = done(url, &["add", "nightly"]);
    wait_until("the revoked key is refused", || Client::new(&service, &second).get("/models").status == 401);
    assert_eq!(Client::new(&service, &third).ids(), [0_i64; 0], "what a revoked key owned is not its namesake's");
    let list = done(url, &["list"]);
    let revoked: Vec<bool> = list.lines().skip(1).map(|line| line.matches(" - ").count() == 1).collect();
    assert_eq!((list.lines().count(), list.matches("nightly").count()), (3, 2), "{list}");
    assert_eq!(revoked.len(), 2, "{list}");
}

#[test]
fn what_was_made_without_keys_is_adopted_when_asked() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&example());
    let (code, first, log) = key(("DATABASE_URL", &database.url), &["add", "first"]);
    assert!(code == Some(0) && log.contains("belong to nobody") && log.contains("--adopt"), "{log}");
    let (code, second, log) = key(("DATABASE_URL", &database.url), &["add", "second", "--adopt"]);
    assert!(code == Some(0) && log.contains("1 models and 1 datasets"), "{log}");
    wait_until("the keys are in use", || service.get("/models").status == 401);
    assert_eq!(Client::new(&service, second.trim()).ids(), [id]);
    assert!(Client::new(&service, first.trim()).ids().is_empty());
}

#[test]
fn keys_are_made_on_the_private_server_whether_it_runs_or_not() {
    let folder = Folder::new();
    let variable = ("ROCKET_DATA_DIR", folder.0.to_str().unwrap());
    let (code, before, log) = key(variable, &["add", "before"]);
    assert!(code == Some(0) && before.lines().count() == 1, "{log}");
    let settings = [variable, ("ROCKET_PORT", "0"), ("ROCKET_WORKERS", "0"), ("ROCKET_ADDRESS", "0.0.0.0")];
    let mut process = Process::spawn(ridgeline(&["serve"]).envs(settings));
    process.wait_for_line("listening on ");
    let (code, during, log) = key(variable, &["add", "during"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(before.starts_with("ridgeline_1_") && during.starts_with("ridgeline_2_"));
    process.stop();
    let (code, list, log) = key(variable, &["list"]);
    assert!(code == Some(0) && list.contains("before") && list.contains("during"), "{log}");
}

#[test]
fn a_large_body_without_a_key_is_401_and_not_a_broken_connection() {
    let database = Database::new();
    done(&database.url, &["add", "only"]);
    let service = Service::without_workers(&database);
    let body = "1,2\n".repeat(1 << 23);
    service.post_as("text/csv", "/train?target=a", body).error(401);
}

#[test]
fn keys_that_cannot_be_read_are_503_for_many_at_once_and_read_again_later() {
    let mut server = Server::start();
    let key = done(server.url(), &["add", "only"]);
    let service = Settings::new(server.url()).set("ROCKET_WORKERS", 0).set("ROCKET_POOL_TIMEOUT_SECONDS", 1).serve();
    let client = Client::new(&service, &key);
    client.get("/models").ok(200);
    server.stop();
    wait_until("the keys are too old", || client.get("/models").status == 503);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| client.get("/models").error(503));
        }
    });
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}: one after the other", start.elapsed());
    server.restart();
    wait_until("the key is known again", || client.get("/models").status == 200);
}

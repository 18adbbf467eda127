//! `Idempotency-Key`: a request that is sent again makes nothing new.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel::connection::SimpleConnection;
use serde_json::{Value, json};

use crate::support::{Database, Raw, Reply, Service, Settings, example, new_key, wait_until, with};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// `POST /train` with a key.
#[track_caller]
fn train(service: &Service, key: &str, request: &Value) -> Reply {
    service.send("POST", "/train", &[JSON, ("Idempotency-Key", key)], request.to_string().as_bytes())
}

#[test]
fn a_request_that_is_sent_again_gets_the_same_model_however_it_is_written() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let reply = train(&service, "\"a key\"", &example());
    assert_eq!((reply.ok(202), reply.header("idempotent-replayed")), (json!({"model_id": 1}), ""));
    let seed = service.model(1)["params"]["seed"].clone();

    let csv = example()["data"].as_str().unwrap().to_owned();
    let quoted = serde_json::to_string(&csv).unwrap();
    let reordered = format!(
        r#" {{"l2_coef": [1, 1e1, 100.0], "fit_intercept": true, "name": null,
             "n_folds": 4, "target": "\u0061", "data": {quoted}}}"#
    );
    let query = "/train?n_folds=4&l2_coef=1,10,100&target=a&fit_intercept=True";
    let key = ("Idempotency-Key", "\"a key\"");
    for reply in [
        train(&service, "\"a key\"", &example()),
        service.send("POST", "/train", &[key, JSON], reordered.as_bytes()),
        service.send("POST", query, &[("Content-Type", "text/csv"), key], csv.as_bytes()),
        service.send(
            "POST",
            query,
            &[("Content-Encoding", "gzip"), key, ("Content-Type", "text/csv; charset=utf-8")],
            &crate::bodies::gzip(csv.as_bytes()),
        ),
    ] {
        assert_eq!(reply.ok(202), json!({"model_id": 1}));
        assert_eq!((reply.header("location"), reply.header("idempotent-replayed")), ("/model/1", "true"));
    }
    assert_eq!(service.model(1)["params"]["seed"], seed);
    assert_eq!(database.stored_rows(), "1 1 1");
}

#[test]
fn another_request_with_the_same_key_is_refused() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    train(&service, "k", &example()).ok(202);
    let data = example()["data"].as_str().unwrap().replace("1.0", "1.5");
    for fields in [
        json!({"l2_coef": [1.0, 10.0]}),
        json!({"n_folds": null}),
        json!({"seed": 1}),
        json!({"name": "n"}),
        json!({"data": data}),
        json!({"data": null, "dataset_id": 1}),
    ] {
        let reply = train(&service, "k", &with(example(), fields.clone()));
        let sentence = "Idempotency-Key: the key has been used for another request, which made model 1";
        assert_eq!((reply.error(422).as_str(), &reply.json()["code"]), (sentence, &json!("key_reused")), "{fields}");
    }
    assert_eq!(train(&service, "K", &example()).ok(202)["model_id"], 2);
    assert_eq!(service.submit(&example()), 3);
    assert_eq!(database.stored_rows(), "3 3 3");
}

#[test]
fn a_key_is_kept_as_long_as_its_model_and_across_restarts() {
    let database = Database::new();
    let service = Service::start(&database);
    train(&service, "\"k\"", &example()).ok(202);
    let model = service.ended(1);
    drop(service);
    let service = Service::start(&database);
    // Without its quotes it is the same key.
    let headers = [JSON, ("Idempotency-Key", "k"), ("Prefer", "wait=10")];
    let reply = service.send("POST", "/train", &headers, example().to_string().as_bytes());
    assert_eq!((reply.ok(200), reply.header("idempotent-replayed")), (model, "true"));

    assert_eq!(service.send("DELETE", "/model/1", &[], b"").status, 204);
    let reply = train(&service, "k", &with(example(), json!({"seed": 1})));
    assert_eq!((reply.ok(202), reply.header("idempotent-replayed")), (json!({"model_id": 2}), ""));
}

#[test]
fn what_was_refused_keeps_no_key() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    train(&service, "k", &with(example(), json!({"target": "z"}))).error(422);
    train(&service, "k", &with(example(), json!({"data": null, "dataset_id": 7}))).error(404);
    train(&service, "k", &example()).ok(202);
    assert_eq!(database.stored_rows(), "1 1 1");
}

#[test]
fn a_key_of_the_wrong_form_is_refused_and_nothing_is_stored() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let long = "k".repeat(256);
    for key in ["", "\"\"", "\"a", "a b", "a,b", "\"a\";p=1", "ä", &long] {
        let sentence = "Idempotency-Key: expected one key of 1 to 255 printable ASCII characters";
        let error = train(&service, key, &example()).error(400);
        assert!(error.starts_with(sentence), "{key}: {error}");
    }
    let twice = [JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    service.send("POST", "/train", &twice, example().to_string().as_bytes()).error(400);
    service.send("POST", "/datasets", &twice, br#"{"data": "a\n1\n"}"#).error(400);
    assert_eq!(database.stored_rows(), "0 0 0");
    train(&service, &long[1..], &example()).ok(202);
}

#[test]
fn twenty_clients_with_one_key_get_one_model_from_two_services() {
    let database = Database::new();
    let services = [Service::without_workers(&database), Service::without_workers(&database)];
    for (key, data) in
        [("small", example()["data"].clone()), ("large", json!(crate::support::generated_csv(2_000, 50)))]
    {
        let request = with(example(), json!({"data": data, "target": if key == "small" { "a" } else { "y" }}));
        let start = Barrier::new(20);
        let replies: Vec<Reply> = std::thread::scope(|scope| {
            let send = |client: usize| {
                let (services, start, request) = (&services, &start, &request);
                move || {
                    start.wait();
                    train(&services[client % 2], key, request)
                }
            };
            let clients: Vec<_> = (0..20).map(|client| scope.spawn(send(client))).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let id = replies[0].ok(202)["model_id"].clone();
        assert!(replies.iter().all(|reply| reply.ok(202)["model_id"] == id), "{replies:?}");
        let is_first = |reply: &&Reply| reply.header("idempotent-replayed").is_empty();
        assert_eq!(replies.iter().filter(is_first).count(), 1, "{replies:?}");
    }
    assert_eq!(database.stored_rows(), "2 2 2");
}

#[test]
fn a_service_killed_amid_requests_of_one_key_leaves_one_model() {
    let database = Database::new();
    let mut dying = Service::without_workers(&database);
    let other = Service::without_workers(&database);
    // Nobody can commit while this is held: the requests are under way.
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE models IN SHARE ROW EXCLUSIVE MODE").unwrap();
    let unanswered = AtomicUsize::new(0);
    let url = dying.url("");
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|client| {
                let (other, unanswered, url) = (&other, &unanswered, &url);
                scope.spawn(move || {
                    let (body, headers) = (example().to_string(), [JSON, ("Idempotency-Key", "k")]);
                    let url = if client % 2 == 0 { format!("{url}/train") } else { other.url("/train") };
                    loop {
                        match crate::support::exchange("POST", &url, &headers, body.as_bytes()) {
                            Ok(reply) if reply.status != 503 => return reply,
                            Ok(_busy) => {}
                            Err(_no_reply) => {
                                unanswered.fetch_add(1, Ordering::Relaxed);
                                return other.send("POST", "/train", &headers, body.as_bytes());
                            }
                        }
                    }
                })
            })
            .collect();
        let waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        wait_until("requests of both services are under way", || database.value(waiting).parse::<u32>().unwrap() > 16);
        dying.process.kill();
        blocker.batch_execute("ROLLBACK").unwrap();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(unanswered.into_inner(), 10);
    let id = replies[0].ok(202)["model_id"].clone();
    assert!(replies.iter().all(|reply| reply.ok(202)["model_id"] == id), "{replies:?}");
    wait_until("what the killed service had begun is undone", || database.stored_rows() == "1 1 1");
}

#[test]
fn a_client_that_lost_the_reply_gets_it_again_although_the_queue_is_full() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_QUEUE_LIMIT", 1).serve();
    let body = example().to_string();
    let mut client = Raw::connect(&service);
    let length = body.len();
    client.send(format!(
        "POST /train HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: \"k\"\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
    wait_until("the job is queued", || database.stored_rows() == "1 1 1");
    drop(client);
    service.post("/train", &example()).error(503);
    train(&service, "l", &example()).error(503);
    assert_eq!(train(&service, "\"k\"", &example()).ok(202)["model_id"], 1);
    assert_eq!(database.stored_rows(), "1 1 1");
}

#[test]
fn every_owner_has_keys_of_their_own() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    train(&service, "k", &example()).ok(202);
    let bearers = ["a", "b"].map(|name| format!("Bearer {}", new_key(&database, name)));
    wait_until("the keys are in use", || service.get("/models").status == 401);
    for round in 0..2 {
        for (id, bearer) in (2..).zip(&bearers) {
            let headers = [JSON, ("Idempotency-Key", "k"), ("Authorization", bearer.as_str())];
            let reply = service.send("POST", "/train", &headers, example().to_string().as_bytes());
            assert_eq!(reply.ok(202)["model_id"], id, "{round}");
        }
    }
    assert_eq!(database.stored_rows(), "3 3 3");
}

#[test]
fn a_dataset_that_is_posted_again_is_stored_once() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let key = ("Idempotency-Key", "\"upload-1\"");
    let csv = "a,b\n1,2\n3,4\n";
    let form = "--X\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nd\r\n\
                --X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d.csv\"\r\n\r\n\
                a,b\n1,2\n3,4\n\r\n--X--\r\n";
    let first = service.send("POST", "/datasets?name=d", &[("Content-Type", "text/csv"), key], csv.as_bytes());
    let document = first.ok(201);
    assert_eq!(first.header("idempotent-replayed"), "");
    for reply in [
        service.send("POST", "/datasets?name=d", &[key, ("Content-Type", "text/csv")], csv.as_bytes()),
        service.send("POST", "/datasets", &[JSON, key], json!({"name": "d", "data": csv}).to_string().as_bytes()),
        service.send("POST", "/datasets", &[("Content-Type", "multipart/form-data; boundary=X"), key], form.as_bytes()),
    ] {
        assert_eq!((reply.ok(201), reply.header("location")), (document.clone(), "/dataset/1"));
        assert_eq!(reply.header("idempotent-replayed"), "true");
    }
    for (path, csv) in [("/datasets?name=e", csv), ("/datasets?name=d", "a,b\n1,2\n3,5\n"), ("/datasets", csv)] {
        let reply = service.send("POST", path, &[key, ("Content-Type", "text/csv")], csv.as_bytes());
        assert!(reply.error(422).ends_with("for another request, which made dataset 1"), "{reply:?}");
    }
    // The key of a training is another one.
    let request = json!({"dataset_id": 1, "target": "a", "n_folds": 2}).to_string();
    service.send("POST", "/train", &[JSON, key], request.as_bytes()).ok(202);
    service.post("/model/1/cancel", &json!({})).ok(202);
    assert_eq!(service.send("DELETE", "/dataset/1", &[], b"").status, 204);
    // The model is still the answer, although its dataset is gone.
    assert_eq!(service.send("POST", "/train", &[JSON, key], request.as_bytes()).ok(202)["model_id"], 1);
    let again = service.send("POST", "/datasets?name=d", &[("Content-Type", "text/csv"), key], csv.as_bytes());
    assert_eq!(again.ok(201)["dataset_id"], 2);
}

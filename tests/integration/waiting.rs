//! `Prefer: wait=S`, and `GET /model/N/events`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::support::{Database, Raw, Reply, Service, Settings, example, long_job, new_key, wait_until, with};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[track_caller]
fn train_and_wait(service: &Service, request: &Value, prefer: &str) -> Reply {
    service.send("POST", "/train", &[JSON, ("Prefer", prefer)], request.to_string().as_bytes())
}

/// Whether the process has an open socket for each of `n` clients.
fn has_accepted(service: &Service, n: usize) -> bool {
    let path = PathBuf::from(format!("/proc/{}/fd", service.process.id()));
    std::fs::read_dir(path).unwrap().count() >= n
}

#[test]
fn a_training_that_is_waited_for_answers_with_its_document() {
    let database = Database::new();
    let service = Service::start(&database);
    let reply = train_and_wait(&service, &example(), "respond-async, wait=50");
    let document = reply.ok(200);
    assert_eq!((&document["status"], &document["model_id"]), (&json!("trained"), &json!(1)));
    assert_eq!((reply.header("location"), reply.header("preference-applied")), ("/model/1", "wait=50"));
    assert_eq!(document, service.model(1));

    // One that fails has ended as well.
    let reply = train_and_wait(
        &service,
        &with(example(), json!({"data": "a,b,c\n1e300,1e300,1\n-1e300,0,1\n1,2,3\n4,5,6\n"})),
        "wait=50",
    );
    assert_eq!(reply.ok(200)["status"], "failed", "{reply:?}");
}

#[test]
fn who_waits_in_vain_is_told_what_there_is() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let start = Instant::now();
    let reply = train_and_wait(&service, &example(), "wait=1");
    assert_eq!(reply.ok(202), json!({"model_id": 1}));
    assert_eq!((reply.header("location"), reply.header("preference-applied")), ("/model/1", "wait=1"));
    let reply = service.send("GET", "/model/1", &[("Prefer", "wait=1")], b"");
    assert_eq!(reply.ok(200)["status"], "queued");
    assert_eq!(reply.header("preference-applied"), "wait=1");
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    for ignored in ["wait=x", "wait", "return=minimal", "wait=0"] {
        let reply = service.send("GET", "/model/1", &[("Prefer", ignored)], b"");
        assert_eq!(reply.ok(200)["status"], "queued");
        assert_eq!(reply.header("preference-applied"), if ignored == "wait=0" { "wait=0" } else { "" });
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // Neither errors nor models that have ended are held back.
    service.send("GET", "/model/9", &[("Prefer", "wait=50")], b"").error(404);
    train_and_wait(&service, &json!({}), "wait=50").error(422);
    service.post("/model/1/cancel", &json!({})).ok(202);
    let reply = service.send("GET", "/model/1", &[("Prefer", "wait=50")], b"");
    assert_eq!(reply.ok(200)["status"], "cancelled");
}

#[test]
fn replies_come_when_the_job_has_ended_and_not_when_somebody_looks_again() {
    let database = Database::new();
    let service = Service::start(&database);
    let mut delays: Vec<i64> = (0..40)
        .map(|_| {
            let document = train_and_wait(&service, &example(), "wait=50").ok(200);
            let finished: DateTime<Utc> = document["finished_at"].as_str().unwrap().parse().unwrap();
            (Utc::now() - finished).num_milliseconds()
        })
        .collect();
    delays.sort_unstable();
    // The machine may be busy with other tests; but by looking each second alone hardly any would come so soon.
    assert!(delays[10] <= 20 && delays[20] <= 100, "milliseconds from the end to the reply: {delays:?}");
}

#[test]
fn two_thousand_clients_wait_without_threads_or_connections_of_their_own() {
    const CLIENTS: usize = 2_000;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let needed = 2 * CLIENTS as u64;
    assert!(hard >= needed, "the test needs {needed} file descriptors (ulimit -Hn), but may have {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(needed), hard).unwrap();
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&example());
    let request = format!("GET /model/{id} HTTP/1.1\r\nHost: x\r\nPrefer: wait=50\r\nConnection: close\r\n\r\n");
    let mut clients: Vec<Raw> = (0..CLIENTS)
        .map(|_| {
            let mut client = Raw::connect(&service);
            assert!(client.send(&request));
            client
        })
        .collect();
    wait_until("all clients are connected", || has_accepted(&service, CLIENTS));
    wait_until("all have looked once", || {
        database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'")
            == "1"
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.process.id())).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim();
    assert!(threads.parse::<usize>().unwrap() < 60, "{threads} threads");
    let connections = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = 'ridgeline'";
    // The pool's sixteen, and the one that listens.
    assert!(database.value(connections).parse::<usize>().unwrap() <= 17);

    let start = Instant::now();
    service.post(&format!("/model/{id}/cancel"), &json!({})).ok(202);
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!(reply.ok(200)["status"], "cancelled");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_lost_announcement_costs_a_second_and_a_lost_connection_is_made_anew() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let ids: Vec<i64> = (0..2).map(|_| service.submit(&example())).collect();
    let wait = |id: i64| service.send("GET", &format!("/model/{id}"), &[("Prefer", "wait=50")], b"");
    // The last statement of the connection that listens.
    let looks = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'
                 AND query LIKE '%FROM \"models\" WHERE %' AND query NOT LIKE '%IS NOT DISTINCT%'";
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(ids[0]));
        wait_until("the service listens and has looked", || database.value(looks) == "1");
        database.execute("ALTER TABLE models DISABLE TRIGGER models_announce_updated");
        service.post(&format!("/model/{}/cancel", ids[0]), &json!({})).ok(202);
        assert_eq!(waiting.join().unwrap().ok(200)["status"], "cancelled");

        let waiting = scope.spawn(|| wait(ids[1]));
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        service.process.expect_log("models cannot be watched, tries again");
        database.execute("ALTER TABLE models ENABLE TRIGGER models_announce_updated");
        wait_until("the model is cancelled", || {
            service.post(&format!("/model/{}/cancel", ids[1]), &json!({})).status == 202
        });
        assert_eq!(waiting.join().unwrap().ok(200)["status"], "cancelled");
    });
}

/// An event: its name, its data, its id.
type Event = (String, Value, String);

/// The events of a model, as they come.
fn events(service: &Service, id: i64, headers: &[(&str, &str)]) -> impl Iterator<Item = Event> + use<> {
    let mut request = ureq::get(service.url(&format!("/model/{id}/events")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.call().unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut lines = BufReader::new(response.into_body().into_reader()).lines().map(Result::unwrap);
    std::iter::from_fn(move || {
        let mut event = (String::new(), Value::Null, String::new());
        loop {
            let line = lines.next()?;
            match line.split_once(':') {
                None if line.is_empty() && !event.0.is_empty() => return Some(event),
                Some(("event", name)) => event.0 = name.trim_start().to_owned(),
                Some(("data", data)) => event.1 = serde_json::from_str(data).unwrap(),
                Some(("id", id)) => event.2 = id.trim_start().to_owned(),
                Some(("retry", time)) => assert_eq!(time.trim(), "1000"),
                _ => {}
            }
        }
    })
}

#[test]
fn events_tell_the_whole_course_of_a_training_and_end_with_it() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&long_job());
    let mut stream = events(&service, id, &[]);
    let queued = json!({"model_id": id, "status": "queued", "attempt": 0});
    assert_eq!(stream.next().unwrap(), ("status".to_owned(), queued, String::new()));
    let _worker = Settings::new(&database.url).worker();
    let training = json!({"model_id": id, "status": "training", "attempt": 1, "progress": 0.0});
    assert_eq!(stream.next().unwrap(), ("status".to_owned(), training, String::new()));
    let mut rest: Vec<Event> = stream.collect();
    let trained = json!({"model_id": id, "status": "trained", "attempt": 1});
    assert_eq!(rest.pop().unwrap(), ("status".to_owned(), trained.clone(), "trained".to_owned()));
    assert!(!rest.is_empty(), "there should be progress");
    assert!(rest.iter().all(|(name, data, _)| name == "progress" && data["model_id"] == id), "{rest:?}");
    assert!(rest.is_sorted_by_key(|(_, data, _)| data["progress"].as_f64().unwrap()), "{rest:?}");

    // Whoever comes later hears of the end alone, and a browser that comes back is told to stay away.
    let later: Vec<Event> = events(&service, id, &[]).collect();
    assert_eq!(later, [("status".to_owned(), trained, "trained".to_owned())]);
    let reply = service.send("GET", &format!("/model/{id}/events"), &[("Last-Event-ID", "trained")], b"");
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    service.get("/model/99/events").error(404);
    service.get("/model/x/events").error(404);
    service.post("/model/1/events", &json!({})).error(405);
}

#[test]
fn events_tell_of_failures_cancellations_and_deletions() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let ids: Vec<i64> = (0..3).map(|_| service.submit(&example())).collect();
    let mut streams: Vec<_> = ids.iter().map(|&id| events(&service, id, &[])).collect();
    for stream in &mut streams {
        assert_eq!(stream.next().unwrap().1["status"], "queued");
    }
    service.post(&format!("/model/{}/cancel", ids[0]), &json!({})).ok(202);
    assert_eq!(service.send("DELETE", &format!("/model/{}", ids[1]), &[], b"").status, 204);
    database.execute(&format!(
        "UPDATE models SET status = 'failed', error = 'why', finished_at = now() WHERE id = {}",
        ids[2]
    ));
    let expected = [
        json!({"model_id": ids[0], "status": "cancelled", "attempt": 0}),
        json!({"model_id": ids[1], "status": "deleted"}),
        json!({"model_id": ids[2], "status": "failed", "attempt": 0, "error": "why"}),
    ];
    for (stream, expected) in streams.into_iter().zip(expected) {
        let rest: Vec<Event> = stream.collect();
        let id = expected["status"].as_str().unwrap().to_owned();
        assert_eq!(rest, [("status".to_owned(), expected, id)]);
    }
    let reply = service.send("GET", &format!("/model/{}/events", ids[1]), &[("Last-Event-ID", "deleted")], b"");
    assert_eq!(reply.status, 204);
}

#[test]
fn a_service_that_stops_keeps_nobody_waiting() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    let id = service.submit(&example());
    let mut stream = events(&service, id, &[]);
    assert_eq!(stream.next().unwrap().1["status"], "queued");
    let mut client = Raw::connect(&service);
    let sent = database.value("SELECT clock_timestamp()");
    assert!(client.send(format!("GET /model/{id} HTTP/1.1\r\nHost: x\r\nPrefer: wait=50\r\n\r\n")));
    let looked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'
         AND query LIKE '%IS NOT DISTINCT FROM%' AND query_start > '{sent}'"
    );
    wait_until("the request waits", || database.value(&looked) == "1");
    let start = Instant::now();
    service.process.stop();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(stream.count(), 0);
    assert_eq!(client.reply().ok(200)["status"], "queued");
}

#[test]
fn nobody_waits_for_the_model_of_another_key() {
    let database = Database::new();
    let keys = ["one", "two"].map(|name| format!("Bearer {}", new_key(&database, name)));
    let service = Service::without_workers(&database);
    let headers = |key: usize| [JSON, ("Prefer", "wait=50"), ("Authorization", keys[key].as_str())];
    let body = example().to_string();
    let headers_of_one = [JSON, ("Authorization", keys[0].as_str())];
    let id = service.send("POST", "/train", &headers_of_one, body.as_bytes()).ok(202)["model_id"].clone();
    for path in [format!("/model/{id}"), format!("/model/{id}/events")] {
        service.send("GET", &path, &headers(1), b"").error(404);
        service.send("GET", &path, &[("Prefer", "wait=50")], b"").error(401);
    }
}

//! Connections on which nothing happens, and too many of them.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{Database, Raw, Service, Settings, example, generated_csv, wait_until};

/// This process needs a descriptor for each connection that it holds.
fn raise_own_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= 6_000, "the tests need 6000 open files, but may have {hard}: raise the hard limit (ulimit -Hn)");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// Connections that never come to a request: idle, with half a head, with a body that does not begin.
fn hold(service: &Service, n: usize) -> Vec<Raw> {
    let beginnings = [
        "",
        "GET /models HT",
        "POST /train?target=a HTTP/1.1\r\nHost: x\r\nX-Long: ",
        "POST /train HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\na,b",
    ];
    let connect = |i: usize| {
        let mut connection = Raw::connect(service);
        connection.send(beginnings[i % beginnings.len()]);
        connection
    };
    (0..n).map(connect).collect()
}

#[track_caller]
fn is_served(service: &Service) {
    let start = Instant::now();
    service.get("/health/ready").ok(200);
    service.submit(&example());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn five_thousand_silent_connections_keep_nobody_out_and_are_ended() {
    raise_own_limit();
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_IDLE_TIMEOUT_SECONDS", 5).serve();
    is_served(&service);
    let (before, memory) = (service.process.descriptors(), service.process.peak_memory());
    let mut held = hold(&service, 5_000);
    wait_until("all are open", || service.process.descriptors() >= before + 4_000);
    is_served(&service);
    let grown = service.process.peak_memory() - memory;
    assert!(grown < 256 << 20, "{grown} bytes");
    wait_until("all have been ended", || service.process.descriptors() < before + 100);
    wait_until("the clients have seen it", || held.iter_mut().all(Raw::is_closed));
    is_served(&service);
}

#[test]
fn more_connections_than_descriptors_keep_nobody_out() {
    raise_own_limit();
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_IDLE_TIMEOUT_SECONDS", 3600);
    let service = settings.serve_with_descriptors(300);
    let log = service.process.log();
    assert!(log.contains("the system grants 300 open files, so connection_limit is lowered to 156"), "{log}");
    let _held = hold(&service, 1_000);
    is_served(&service);
    wait_until("the others have been ended", || service.process.descriptors() < 200);
    is_served(&service);
    service.process.expect_log("more than connection_limit");
}

#[test]
fn a_body_whose_first_bytes_do_not_come_is_given_up() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0);
    let service = settings.set("ROCKET_IDLE_TIMEOUT_SECONDS", 1).serve();
    for start in ["", "a,b\n1"] {
        let mut client = Raw::connect(&service);
        client
            .send("POST /train?target=a HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\n");
        client.send(start);
        let reply = client.reply();
        assert!(reply.error(408).contains("the body stalled before its first bytes"), "{reply:?}");
        assert_eq!(client.rest(), "");
    }
    assert_eq!(database.stored_rows(), "0 0 0");
}

#[test]
fn a_connection_that_works_is_not_ended_for_being_slow() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_IDLE_TIMEOUT_SECONDS", 1).serve();
    let id = service.train(&example())["model_id"].clone();
    // A body that comes in two parts, and a reply that is not read for longer than an idle connection may last.
    let rows = generated_csv(400_000, 1).replace("y,x0", "b,c");
    let (first, second) = rows.split_at(1_000_000);
    let mut client = Raw::connect(&service);
    client.send(format!(
        "POST /model/{id}/predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\r\n",
        rows.len()
    ));
    client.send(first);
    let mut silent = Raw::connect(&service);
    wait_until("an idle connection has been ended", || silent.is_closed());
    client.send(second);
    let mut silent = Raw::connect(&service);
    wait_until("the next idle connection has been ended", || silent.is_closed());
    let reply = client.reply().ok(200);
    assert_eq!(reply["result"].as_array().unwrap().len(), 400_000);
    // An idle connection takes a further request, and ends when none comes.
    client.send("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply().ok(200), json!({"status": "live"}));
    wait_until("it has been ended as well", || client.is_closed());
}

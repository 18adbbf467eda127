//! What clients see when the database fails, and that it passes.

use diesel::connection::SimpleConnection;
use serde_json::json;

use crate::support::{Database, Server, Service, Settings, example, wait_until};

#[test]
fn a_database_that_goes_away_is_503_until_it_is_back() {
    let mut server = Server::start();
    let service = Settings::new(server.url()).serve();
    let id = service.train(&example())["model_id"].clone();

    server.stop();
    let reply = service.post("/train", &example());
    reply.error(503);
    assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
    service.get(&format!("/model/{id}")).error(503);
    service.post(&format!("/model/{id}/predict"), &json!({"data": "b,c\n1,2\n"})).error(503);
    service.get("/health/ready").error(503);
    service.get("/health/live").ok(200);

    server.restart();
    wait_until("the service is ready again", || service.get("/health/ready").status == 200);
    service.get(&format!("/model/{id}")).ok(200);
    service.train(&example());
}

#[test]
fn connections_that_are_cut_between_requests_do_no_harm() {
    let database = Database::new();
    let service = Service::start(&database);
    service.train(&example());
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
    service.train(&example());
}

#[test]
fn a_request_that_gets_no_connection_in_time_is_503() {
    let database = Database::new();
    let settings = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_POOL_SIZE", 1);
    let service = settings.set("ROCKET_POOL_TIMEOUT_SECONDS", 1).serve();
    let id = service.submit(&example());
    let path = format!("/model/{id}");

    // A lock that makes the one connection wait.
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE models IN ACCESS EXCLUSIVE MODE").unwrap();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| service.get(&path));
        wait_until("the first request waits for the lock", || {
            database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1"
        });
        let reply = service.get(&path);
        reply.error(503);
        assert!(!reply.header("retry-after").is_empty());
        blocker.batch_execute("COMMIT").unwrap();
        held.join().unwrap().ok(200);
    });
    service.get(&path).ok(200);
}

#[test]
fn a_bug_is_500_with_a_fixed_text_and_its_cause_in_the_log() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let id = service.submit(&example());
    database.execute("ALTER TABLE models DROP COLUMN progress");
    let reply = service.get(&format!("/model/{id}"));
    let error = reply.error(500);
    assert!(!error.contains("progress") && !error.contains("column"), "{error}");
    let log = service.process.log();
    let cause = log.lines().find(|line| line.contains(" ERROR ")).unwrap();
    assert!(cause.contains("progress") && cause.contains(reply.header("x-request-id")), "{cause}");
}

#[test]
fn a_transaction_that_fails_leaves_nothing_behind() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    database.execute("ALTER TABLE models ADD CHECK (id > 1)");
    service.post("/train", &example()).error(500);
    assert_eq!(database.stored_rows(), "0 0 0");
    service.submit(&example());
    assert_eq!(database.stored_rows(), "1 1 1");
}

//! What clients see when the database fails, and that it passes.

use std::time::Instant;

use diesel::connection::SimpleConnection;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Database, Server, Service, Settings, example, long_job, ridgeline, wait_until};

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
fn requests_that_get_no_connection_or_no_lock_in_time_are_503() {
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
        held.join().unwrap().error(503);
    });
    blocker.batch_execute("COMMIT").unwrap();
    service.get(&path).ok(200);
}

#[test]
fn a_bug_is_500_with_a_fixed_text_and_its_cause_in_the_log() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    let id = service.submit(&example());
    database.execute("ALTER TABLE models DROP COLUMN progress CASCADE");
    let reply = service.get(&format!("/model/{id}"));
    let error = reply.error(500);
    assert!(!error.contains("progress") && !error.contains("column"), "{error}");
    let cause = service.process.wait_for_line(" ERROR ");
    assert!(cause.contains("progress") && cause.contains(reply.header("x-request-id")), "{cause}");
}

#[test]
fn the_database_is_asked_for_messages_in_english_whatever_its_language() {
    let database = Database::new();
    let name = database.value("SELECT current_database()");
    database.execute(&format!(
        "ALTER DATABASE {name} SET lc_messages = 'C.UTF-8';
         CREATE TABLE languages (language text);
         CREATE FUNCTION note_language() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO languages VALUES (current_setting('lc_messages'));
             RETURN NULL;
         END $$;
         CREATE TRIGGER note_language AFTER INSERT OR UPDATE ON models FOR EACH STATEMENT EXECUTE FUNCTION note_language()"
    ));
    assert_eq!(database.value("SELECT current_setting('lc_messages')"), "C.UTF-8");
    Service::start(&database).train(&example());
    // The API has stored the job, and a worker has claimed and ended it.
    assert!(database.value("SELECT count(*) FROM languages").parse::<u32>().unwrap() >= 3);
    assert_eq!(database.value("SELECT string_agg(DISTINCT language, ' ') FROM languages"), "C");
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

#[test]
fn a_database_that_does_not_answer_keeps_nobody_from_stopping() {
    let database = Database::new();
    let mut service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).serve();
    let id = service.submit(&long_job());
    let mut worker = Settings::new(&database.url).worker();
    wait_until("the job is taken", || service.model(id)["status"] == "training");
    let mut blocker = database.connect();
    blocker.batch_execute("BEGIN; LOCK TABLE models IN ACCESS EXCLUSIVE MODE").unwrap();

    let start = Instant::now();
    let url = service.url(&format!("/model/{id}"));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| ureq::get(&url).call().map(|_reply| ()));
        wait_until("the request waits", || {
            database.value("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted") == "true"
        });
        worker.signal(Signal::SIGTERM);
        service.process.signal(Signal::SIGTERM);
        service.process.wait();
        worker.wait();
        client.join().unwrap().unwrap_err();
    });
    assert!(start.elapsed().as_secs() < 12, "{:?}", start.elapsed());
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_service() {
    let database = Database::new();
    let service = Service::start(&database);
    let port = service.url("").rsplit(':').next().unwrap().parse::<u16>().unwrap();
    drop(service);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = ridgeline(&["serve"]);
    command.envs([
        ("DATABASE_URL", database.url.as_str()),
        ("ROCKET_PORT", &port.to_string()),
        ("ROCKET_WORKERS", "0"),
    ]);
    let mut child = command.stdout(full()).stderr(full()).spawn().unwrap();
    wait_until("the service answers", || {
        ureq::get(format!("http://127.0.0.1:{port}/health/ready")).call().is_ok_and(|reply| reply.status() == 200)
    });
    assert!(child.try_wait().unwrap().is_none());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

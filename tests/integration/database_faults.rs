//! Restarts, outages and cuts of the database while jobs are queued, trained and submitted: clients are told to come again,
//! and everything goes on by itself when it is over.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{
    Database, Server, Service, Settings, example, exchange, execute, generated_csv, long_job, record_changes, value,
    wait_until, with,
};

/// Longest that any request may take here: `pool_timeout_seconds` of the tests, and as long for a busy machine.
const PATIENCE: Duration = Duration::from_secs(4);
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// A job that keeps a worker busy for longer than a short outage and a lease together.
fn longer_job() -> Value {
    with(long_job(), json!({"n_folds": 80, "data": generated_csv(1_200, 400)}))
}

/// Clients that submit one small job after the other.
#[derive(Default)]
struct Clients {
    stop: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

impl Clients {
    /// Submits until told to stop; returns the models that it was told of.
    fn submit(&self, service: &Service) -> Vec<i64> {
        let body = example().to_string();
        let mut ids = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            let reply = exchange("POST", &service.url("/train"), &JSON, body.as_bytes()).unwrap();
            assert!(start.elapsed() < PATIENCE, "{:?}: {reply:?}", start.elapsed());
            if reply.status == 202 {
                ids.push(reply.ok(202)["model_id"].as_i64().unwrap());
                self.accepted.fetch_add(1, Ordering::Relaxed);
            } else {
                reply.error(503);
                assert!(reply.header("retry-after").parse::<u32>().unwrap() > 0);
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(20));
        }
        ids
    }

    #[track_caller]
    fn wait_for(&self, counter: &AtomicUsize, more: usize) {
        let most = counter.load(Ordering::Relaxed) + more;
        wait_until("the clients have gone on", || counter.load(Ordering::Relaxed) >= most);
    }
}

/// The worker processes of a service, once all have been started.
fn workers(service: &Service, count: usize) -> Vec<Pid> {
    wait_until("the workers have been started", || service.process.children().len() == count);
    service.process.children()
}

/// Everything goes on after `outage`, with the same processes; nothing is lost or done twice.
#[track_caller]
fn outlives(lease_seconds: u32, outage: impl FnOnce(&mut Server, &Clients)) {
    let mut server = Server::start();
    let settings = Settings::new(server.url()).set("ROCKET_WORKERS", 2);
    let service = settings.set("ROCKET_LEASE_SECONDS", lease_seconds).serve();
    let url = server.url().to_owned();
    record_changes(&url);
    let workers = workers(&service, 2);
    let long = service.submit(&longer_job());
    wait_until("the job is taken", || service.model(long)["status"] == "training");
    let clients = Clients::default();
    let (ids, events) = thread::scope(|scope| {
        let events = scope.spawn(|| {
            let reply = ureq::get(service.url(&format!("/model/{long}/events"))).call();
            reply.unwrap().into_body().read_to_string().unwrap()
        });
        let clients_of = |_| scope.spawn(|| clients.submit(&service));
        let threads: Vec<ScopedJoinHandle<'_, Vec<i64>>> = (0..4).map(clients_of).collect();
        clients.wait_for(&clients.accepted, 20);
        outage(&mut server, &clients);
        assert_eq!(server.url(), url);
        clients.wait_for(&clients.accepted, 20);
        clients.stop.store(true, Ordering::Relaxed);
        let ids = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>();
        (ids, events.join().unwrap())
    });

    for id in ids {
        let model = service.ended(id);
        assert_eq!(model["status"], "trained", "{model}");
    }
    // The worker kept its job: it was given the time of a lease to renew it.
    let model = service.ended(long);
    assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(1)), "{model}");
    assert!(events.trim_end().lines().any(|line| line.contains("\"trained\"")), "{events}");
    // A reply that was cut off may have been an acceptance: these models are trained as well.
    let open = "SELECT count(*) FROM models WHERE status <> 'trained'";
    wait_until("all jobs have ended", || value(&url, open) == "0");
    let twice =
        "SELECT count(*) FROM (SELECT FROM changes WHERE new = 'trained' GROUP BY model_id HAVING count(*) > 1) AS m";
    assert_eq!(value(&url, twice), "0");
    assert_eq!(service.process.children(), workers);
    assert!(!service.process.log().contains(" ERROR "), "{}", service.process.log());
    hears_at_once(&service, &url);
}

/// Workers and whoever waits for a model learn of the news by notification: by looking alone they would take half a second
/// and a second.
#[track_caller]
fn hears_at_once(service: &Service, url: &str) {
    let last = value(url, "SELECT max(id) FROM models");
    let mut delays: Vec<i64> = (0..12)
        .map(|_| {
            let headers = [JSON[0], ("Prefer", "wait=20")];
            let document = service.send("POST", "/train", &headers, example().to_string().as_bytes()).ok(200);
            let finished: DateTime<Utc> = document["finished_at"].as_str().unwrap().parse().unwrap();
            (Utc::now() - finished).num_milliseconds()
        })
        .collect();
    let quick =
        format!("SELECT count(*) FROM models WHERE id > {last} AND started_at - created_at < interval '0.25 s'");
    let quick = value(url, &quick);
    assert!(quick.parse::<u32>().unwrap() >= 8, "only {quick} of 12 were taken at once");
    delays.sort_unstable();
    assert!(delays[6] < 250, "milliseconds from the end to the reply: {delays:?}");
}

#[test]
fn a_fast_restart_of_the_database_loses_nothing() {
    outlives(1, |server, _| server.restart());
}

#[test]
fn an_immediate_restart_of_the_database_loses_nothing() {
    outlives(1, |server, clients| {
        server.end_by(Signal::SIGQUIT);
        clients.wait_for(&clients.refused, 1);
        server.restart();
    });
}

#[test]
fn twenty_seconds_without_the_database_lose_nothing() {
    outlives(1, |server, clients| {
        let start = Instant::now();
        server.stop();
        while start.elapsed() < Duration::from_secs(20) {
            clients.wait_for(&clients.refused, 1);
        }
        server.restart();
    });
}

/// Processes that are stopped as long as this is there: also a test that fails has to end the server.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn new(processes: Vec<Pid>) -> Self {
        processes.iter().for_each(|&process| _ = kill(process, Signal::SIGSTOP));
        Self(processes)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.iter().for_each(|&process| _ = kill(process, Signal::SIGCONT));
    }
}

#[test]
fn a_database_that_freezes_holds_nobody_for_ever() {
    let server = Server::start();
    let service = Settings::new(server.url()).set("ROCKET_POOL_SIZE", 2).serve();
    service.train(&example());

    let frozen = Frozen::new(server.processes());
    let start = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(|| service.get("/models"))).collect();
        let health = scope.spawn(|| service.get("/health/ready"));
        for client in clients {
            client.join().unwrap().error(503);
        }
        health.join().unwrap().error(503);
    });
    assert!(start.elapsed() < Duration::from_secs(45), "{:?}", start.elapsed());
    service.get("/health/live").ok(200);
    drop(frozen);
    wait_until("the service is ready again", || service.get("/health/ready").status == 200);
    service.get("/models").ok(200);
    service.train(&example());
    hears_at_once(&service, server.url());
}

/// Makes every statement that `when` describes wait for the lock of [`hold`], in the statement itself or at its commit.
fn wait_at(database: &Database, when: &str) {
    database.execute(&format!(
        "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_advisory_xact_lock_shared(1);
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER wait_for_test AFTER {when} FOR EACH ROW EXECUTE FUNCTION wait_for_test()"
    ));
}

/// While `begin` runs, cuts the connection that waits as [`wait_at`] has set it up.
fn cut<T: Send>(database: &Database, begin: impl FnOnce() -> T + Send) -> T {
    let mut blocker = database.connect();
    blocker.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    thread::scope(|scope| {
        let running = scope.spawn(begin);
        let waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
        wait_until("it waits", || database.value(&format!("SELECT count(*) {waiting}")) == "1");
        database.execute(&format!("SELECT pg_terminate_backend(pid) {waiting}"));
        wait_until("it is cut off", || database.value(&format!("SELECT count(*) {waiting}")) == "0");
        blocker.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
        running.join().unwrap()
    })
}

#[test]
fn a_request_whose_connection_is_cut_is_503_and_leaves_nothing_behind() {
    for when in ["INSERT ON models", "INSERT ON models DEFERRABLE INITIALLY DEFERRED"] {
        let database = Database::new();
        let service = Settings::new(&database.url).set("ROCKET_POOL_TIMEOUT_SECONDS", 30).serve();
        wait_at(&database, when);
        let reply = cut(&database, || service.post("/train", &example()));
        reply.error(503);
        assert_eq!(reply.header("retry-after"), "2");
        assert_eq!(database.stored_rows(), "0 0 0", "{when}");
        service.train(&example());
        assert!(!service.process.log().contains(" ERROR "), "{}", service.process.log());
    }
}

#[test]
fn a_worker_whose_connection_is_cut_keeps_its_job_and_stores_its_result_once() {
    let results = "UPDATE OF model ON models DEFERRABLE INITIALLY DEFERRED";
    for when in ["UPDATE OF attempt ON models", "UPDATE OF model ON models", results] {
        let database = Database::new();
        database.record_changes();
        wait_at(&database, when);
        let service = Settings::new(&database.url).set("ROCKET_LEASE_SECONDS", 60).serve();
        let workers = workers(&service, 1);
        let id = cut(&database, || service.submit(&example()));
        let model = service.ended(id);
        assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(1)), "{when}: {model}");
        assert_eq!(database.times(id, "trained"), "1");
        assert_eq!(service.process.children(), workers);
    }
}

#[test]
fn connections_that_are_cut_again_and_again_lose_nothing() {
    outlives(10, |server, clients| {
        let all_others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                          WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        for round in 0..30 {
            execute(server.url(), all_others);
            if round % 5 == 0 {
                clients.wait_for(&clients.accepted, 1);
            }
        }
    });
}

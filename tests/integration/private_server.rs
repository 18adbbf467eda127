//! `ridgeline serve` with no database configured: its own PostgreSQL, kept between runs, gone with the service.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{
    Folder, Process, Reply, Service, Settings, children_of, example, is_running, ridgeline, wait_until,
};

/// A service, or worker, without a configured database.
fn settings(folder: &Folder) -> Settings {
    // An empty URL is none.
    Settings::new("").set("ROCKET_DATA_DIR", folder.0.display())
}

/// All processes below one, the workers and the server's guard among them.
fn descendants(service: &Service) -> Vec<Pid> {
    let mut found = service.process.children();
    let mut next = 0;
    while next < found.len() {
        found.extend(children_of(found[next]));
        next += 1;
    }
    found
}

#[test]
fn models_outlive_the_service_however_it_ends() {
    let folder = Folder::new();
    let mut service = settings(&folder).serve();
    assert!(service.process.log().contains("no database is configured"), "{}", service.process.log());
    let id = service.train(&example())["model_id"].clone();
    let expected = service.predict(&id, "b,c\n1,2\n");

    for signal in [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM] {
        let processes = descendants(&service);
        assert!(processes.len() >= 3, "a worker, a guard and a server: {processes:?}");
        service.process.signal(signal);
        let status = service.process.wait();
        assert_eq!(status.success(), signal != Signal::SIGKILL, "{signal}: {status}");
        if signal != Signal::SIGKILL {
            // In order: nothing is left once the service has ended.
            assert!(!processes.iter().any(|&process| is_running(process)), "{signal}");
        }
        // Without waiting for what a killed service left behind: the next start has to.
        service = settings(&folder).serve();
        wait_until("the processes of the last run have ended", || {
            !processes.iter().any(|&process| is_running(process))
        });
        assert_eq!(service.predict(&id, "b,c\n1,2\n"), expected);
        service.train(&example());
    }
}

#[test]
fn a_worker_joins_the_server_of_the_same_folder() {
    let folder = Folder::new();
    let service = settings(&folder).set("ROCKET_WORKERS", 0).serve();
    let mut worker = settings(&folder).worker();
    service.train(&example());
    assert!(worker.stop().success());
    assert_eq!(service.submit(&example()), 2);
    assert_eq!(service.model(2)["status"], "queued");
}

#[test]
fn a_second_service_on_the_same_folder_is_refused() {
    let folder = Folder::new();
    let first = settings(&folder).serve();
    let mut second = Process::spawn(ridgeline(&["serve"]).env("ROCKET_DATA_DIR", &folder.0).env("ROCKET_PORT", "0"));
    let (code, log) = second.outcome();
    assert!(code == Some(1) && log.contains(folder.0.to_str().unwrap()), "{code:?} {log}");
    first.train(&example());
}

#[test]
fn a_server_that_dies_takes_the_answers_with_it_but_not_the_service() {
    let folder = Folder::new();
    let service = settings(&folder).serve();
    let id = service.train(&example())["model_id"].clone();
    let pid: i32 = std::fs::read_to_string(folder.0.join("postgres/postmaster.pid"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let reply: Reply = service.get(&format!("/model/{id}"));
    assert!([200, 503].contains(&reply.status), "{reply:?}");
    wait_until("the loss shows", || service.get("/health/ready").status == 503);
    service.get("/health/live").ok(200);
    assert_eq!(service.post(&format!("/model/{id}/predict"), &json!({"data": "b,c\n1,2\n"})).status, 503);
}

//! `ridgeline serve` with no database configured: its own PostgreSQL, kept between runs, gone with the service.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{
    Folder, Process, Service, Settings, children_of, example, is_running, long_job, ridgeline, wait_until,
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

/// The main process of the private server.
fn server(folder: &Folder) -> Option<Pid> {
    let file = std::fs::read_to_string(folder.0.join("postgres/postmaster.pid")).ok()?;
    file.lines().next()?.parse().ok().map(Pid::from_raw)
}

#[test]
fn a_server_that_ends_is_started_again_and_everything_goes_on() {
    let folder = Folder::new();
    let service = settings(&folder).serve();
    let id = service.train(&example())["model_id"].clone();
    let expected = service.predict(&id, "b,c\n1,2\n");
    let workers = |service: &Service| {
        let is_worker = |&process: &Pid| {
            let command = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
            command.contains("\0worker\0")
        };
        service.process.children().into_iter().filter(is_worker).collect::<Vec<_>>()
    };
    let before = workers(&service);
    assert_eq!(before.len(), 1);
    for signal in [Signal::SIGKILL, Signal::SIGQUIT, Signal::SIGINT] {
        let long = service.submit(&long_job());
        wait_until("the job is taken", || service.model(long)["status"] == "training");
        let old = server(&folder).unwrap();
        kill(old, signal).unwrap();
        wait_until("another server runs", || server(&folder).is_some_and(|new| new != old));
        wait_until("the service is ready again", || service.get("/health/ready").status == 200);
        assert_eq!(service.predict(&id, "b,c\n1,2\n"), expected);
        let model = service.ended(long);
        assert_eq!((&model["status"], &model["attempt"]), (&json!("trained"), &json!(1)), "{signal}: {model}");
        service.train(&example());
    }
    assert_eq!(workers(&service), before);
    service.process.expect_log("the private PostgreSQL has ended (exit status: 137); it is started again in 200ms");
    service.process.expect_log("the private PostgreSQL takes connections again");
}

#[test]
fn a_server_that_cannot_start_again_is_tried_until_it_can_and_keeps_nobody_from_stopping() {
    let folder = Folder::new();
    let mut service = settings(&folder).serve();
    let id = service.train(&example())["model_id"].clone();
    let path = folder.0.join("postgres/postgresql.conf");
    let sound = std::fs::read_to_string(&path).unwrap();
    let break_it = || {
        std::fs::write(&path, format!("{sound}\nno_such_setting = 1\n")).unwrap();
        kill(server(&folder).unwrap(), Signal::SIGKILL).unwrap();
    };
    break_it();
    service.process.expect_log("no_such_setting");
    service.get("/health/live").ok(200);
    service.get(&format!("/model/{id}")).error(503);
    std::fs::write(&path, &sound).unwrap();
    wait_until("the service is ready again", || service.get("/health/ready").status == 200);
    service.get(&format!("/model/{id}")).ok(200);

    break_it();
    wait_until("the loss shows", || service.get("/health/ready").status == 503);
    let start = Instant::now();
    assert!(service.process.stop().success());
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}

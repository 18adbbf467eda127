//! The command-line client against services that are away, busy, or end meanwhile: the real binary and the real service.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::client::{Outcome, cars, client, done, finish, json_of, piped, refused, run};
use crate::support::{Database, Folder, Service, Settings, example, generated_csv, long_job, new_key, wait_until};
use crate::tls::Files;

#[test]
fn a_service_that_is_away_or_something_else_is_named() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    service.process.stop();
    let error = refused(run(&service, &["models"]));
    assert_eq!(
        error,
        format!("the service at {} cannot be reached: Connection refused (os error 111)", service.url(""))
    );
    let error = refused(run(&service, &["train", &cars(), "--target=y"]));
    assert!(error.contains("cannot be reached"), "{error}");
    let error = refused(run(&service, &["models", "--server", "http://nowhere.invalid"]));
    assert!(error.contains("http://nowhere.invalid cannot be reached"), "{error}");
}

#[test]
fn what_is_too_large_is_refused_in_words_and_not_sent_over_and_over() {
    let database = Database::new();
    let limits = "{stream=\"1 MiB\",train=\"1 MiB\",predict=\"1 KiB\"}";
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_LIMITS", limits).serve();
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let path = folder.0.join("large.csv");
    fs::write(&path, "1,2\n".repeat(2 << 20)).unwrap();
    let error = refused(run(&service, &["upload", path.to_str().unwrap()]));
    assert!(error.contains("limit of 1MiB"), "{error}");
    let error =
        refused(finish(piped(&service, &["train", "-", "--target=y"]), &format!("y,x\n{}", "1,2\n".repeat(1 << 20))));
    assert!(error.contains("limit of 1MiB"), "{error}");

    // As a service, or a proxy, does that will not even read what it refuses.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let child = client(&service, &["upload", path.to_str().unwrap()]).env("RIDGELINE_SERVER", &address).spawn();
    for _ in 0..2 {
        let mut stream = listener.accept().unwrap().0;
        stream.read_exact(&mut [0; 5000]).unwrap();
    }
    let outcome: Outcome = child.unwrap().wait_with_output().unwrap().into();
    assert!(outcome.code == Some(1) && outcome.out.is_empty(), "{outcome:?}");
    let said: Vec<&str> = outcome.said.lines().collect();
    assert!(said.len() == 2 && said[1].ends_with("before it had all: is it too large?"), "{outcome:?}");
}

#[test]
fn over_https_it_trusts_the_certificate_that_it_is_told_of_and_no_other() {
    let (database, files) = (Database::new(), Files::new());
    let service = files.serve(&database);
    let certificate = files.certificate();
    assert_eq!(done(&service, &["models", "--json", "--cacert", &certificate]), "{\"models\":[],\"next\":null}\n");
    let error = refused(run(&service, &["models"]));
    assert!(error.contains("cannot be reached") && error.to_lowercase().contains("certificate"), "{error}");
    let other = Files::new().certificate();
    assert!(refused(run(&service, &["models", "--cacert", &other])).contains(&format!("{other} cannot be read")));
    assert!(refused(run(&service, &["models", "--cacert", &cars()])).contains("holds no certificate"));
}

#[test]
fn the_key_opens_the_service_and_is_seen_nowhere() {
    let database = Database::new();
    let key = new_key(&database, "client");
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_LOG_LEVEL", "trace").serve();
    let error = refused(run(&service, &["models"]));
    assert!(error.contains("API key"), "{error}");
    let with_key = |key: &str, arguments: &[&str]| -> Outcome {
        client(&service, arguments).env("RIDGELINE_KEY", key).output().unwrap().into()
    };
    assert_eq!(with_key(&key, &["train", &cars(), "--target=distance_ft"]).out, "model 1: queued\n");
    assert_eq!(done(&service, &["cancel", "1", "--key", &key]), "model 1: cancelled\n");
    let wrong = key.replace("_1_", "_2_");
    let secret = &key[12..];
    for (key, words) in [(wrong.as_str(), "API key"), ("a\nb", "characters that no key has"), ("", "API key")] {
        let error = refused(with_key(key, &["models"]));
        assert!(error.contains(words) && !error.contains(secret), "{error}");
    }
    let help = with_key(&key, &["models", "--help"]);
    assert!(help.code == Some(0) && help.out.contains("RIDGELINE_KEY") && !help.out.contains(secret), "{help:?}");
    let usage = with_key(&key, &["models", "--nonsense"]);
    assert!(usage.code == Some(2) && !usage.said.contains(secret), "{usage:?}");
    assert!(!service.process.log().contains(secret));
}

#[test]
fn a_busy_service_is_asked_again_until_the_patience_ends() {
    let database = Database::new();
    let service = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_QUEUE_LIMIT", 1).serve();
    done(&service, &["upload", &cars()]);
    let train = ["train", "--dataset=1", "--target=distance_ft"];
    done(&service, &train);
    let error = refused(run(&service, &[&train[..], &["--patience", "0"]].concat()));
    assert!(error.starts_with("the queue is full"), "{error}");
    for arguments in [&train[..], &["train", &cars(), "--target=distance_ft"]] {
        let child = client(&service, arguments).spawn().unwrap();
        let full = "POST /train 503";
        let before = service.process.log().matches(full).count();
        wait_until("it was told so", || service.process.log().matches(full).count() > before);
        let oldest = service.get("/models?status=queued").ok(200)["models"][0]["model_id"].to_string();
        done(&service, &["cancel", &oldest]);
        let outcome: Outcome = child.wait_with_output().unwrap().into();
        assert!(outcome.code == Some(0) && outcome.out.ends_with(": queued\n"), "{outcome:?}");
    }
    // What was read from a pipe cannot be sent again.
    let outcome = finish(piped(&service, &["train", "-", "--target=y"]), "x,y\n1,2\n2,3\n3,4\n4,5\n5,7\n");
    assert!(refused(outcome).starts_with("the queue is full"));
}

#[test]
fn a_reply_that_is_lost_does_not_make_a_second_model() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", relay.local_addr().unwrap());
    let upstream = service.url("").replace("http://", "");
    let commands: [(&[&str], &str); 3] = [
        (&["upload", &cars()], "dataset 1: 50 rows"),
        (&["train", &cars(), "--target=distance_ft"], "model 1: queued"),
        (&["train", "--dataset=1", "--target=distance_ft"], "model 2: queued"),
    ];
    for (arguments, words) in commands {
        let child = client(&service, arguments).env("RIDGELINE_SERVER", &address).spawn().unwrap();
        // The service has answered, and the client never hears of it.
        let (client, mut server) = (relay.accept().unwrap().0, TcpStream::connect(&upstream).unwrap());
        let mut from_client = client.try_clone().unwrap();
        let mut to_server = server.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || std::io::copy(&mut from_client, &mut to_server));
            assert_eq!(server.read(&mut [0]).unwrap(), 1);
            client.shutdown(Shutdown::Both).unwrap();
        });
        let (mut client, mut server) = (relay.accept().unwrap().0, TcpStream::connect(&upstream).unwrap());
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let outcome: Outcome = std::thread::scope(|scope| {
            scope.spawn(move || {
                let _end = std::io::copy(&mut from_client, &mut to_server);
                to_server.shutdown(Shutdown::Both)
            });
            scope.spawn(move || std::io::copy(&mut server, &mut client));
            child.wait_with_output().unwrap().into()
        });
        assert!(outcome.code == Some(0) && outcome.out.starts_with(words), "{outcome:?}");
    }
    assert_eq!(
        database.value("SELECT concat_ws(' ', (SELECT count(*) FROM models), (SELECT count(*) FROM datasets))"),
        "2 2"
    );
}

#[test]
fn who_waits_outlives_a_restart_of_the_service() {
    let database = Database::new();
    let mut service = Service::without_workers(&database);
    let id = service.submit(&example());
    let port = service.url("").rsplit(':').next().unwrap().to_owned();
    let child = client(&service, &["model", &id.to_string(), "--wait", "--json"]).spawn().unwrap();
    service.process.expect_log("listening");
    wait_until("it waits", || service.process.descriptors() > 0 && is_connected(child.id()));
    service.process.stop();
    let _service = Settings::new(&database.url).set("ROCKET_PORT", port).serve();
    let outcome: Outcome = child.wait_with_output().unwrap().into();
    assert_eq!((outcome.code, &json_of(&outcome.out)["status"]), (Some(0), &json!("trained")), "{outcome:?}");
}

/// Whether the process has a socket open.
fn is_connected(pid: u32) -> bool {
    let descriptors = fs::read_dir(PathBuf::from(format!("/proc/{pid}/fd"))).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.to_string_lossy().starts_with("socket:"))
}

#[test]
fn a_client_that_is_killed_leaves_either_a_whole_job_or_none() {
    let database = Database::new();
    let service = Service::start(&database);
    // While it sends: nothing is stored.
    let mut child = piped(&service, &["train", "-", "--target=y"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(generated_csv(1000, 20).as_bytes()).unwrap();
    wait_until("it sends", || is_connected(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    service.process.expect_log("POST /train 400");
    assert_eq!(database.stored_rows(), "0 0 0");

    // While it waits: the training goes on.
    service.submit(&long_job());
    let mut child = client(&service, &["model", "1", "--wait"]).spawn().unwrap();
    wait_until("it waits", || is_connected(child.id()));
    // Not SIGINT, which a shell has its background jobs ignore, these tests among them.
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    assert_eq!(service.ended(1)["status"], "trained");
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let database = Database::new();
    let service = Service::start(&database);
    service.train(&example());
    let csv = format!("b,c\n{}", "1,2\n".repeat(500_000));
    let mut child = piped(&service, &["predict", "1", "-"]);
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(csv.as_bytes()));
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(&first, b"prediction");
    });
    let outcome: Outcome = child.wait_with_output().unwrap().into();
    assert_eq!((outcome.code, outcome.said.as_str()), (Some(0), ""));
    // An output that cannot be written is no such thing.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let outcome: Outcome = client(&service, &["models"]).stdout(full).output().unwrap().into();
    assert!(refused(outcome).starts_with("the output cannot be written"));
}

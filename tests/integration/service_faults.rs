//! What becomes of requests, datasets and jobs when the API is killed or told to stop while it is at work.

use std::net::TcpStream;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{
    Database, Raw, Settings, example, exchange, generated_csv, is_running, long_job, wait_until, with,
};

#[test]
fn what_clients_were_told_outlives_a_kill_of_the_api() {
    const CLIENTS: usize = 200;
    let database = Database::new();
    let settings = || Settings::new(&database.url).set("ROCKET_POOL_TIMEOUT_SECONDS", 30);
    let mut service = settings().serve();
    let csv = generated_csv(500, 20);
    let train = json!({"data": csv, "target": "y", "l2_coef": [1.0]}).to_string();
    let calls = [("/train", "application/json", &train), ("/datasets", "text/csv", &csv)];
    let urls = calls.map(|(path, ..)| service.url(path));
    let told = [Mutex::new(Vec::new()), Mutex::new(Vec::new())];
    let together = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (calls, urls, told, together) = (&calls, &urls, &told, &together);
            scope.spawn(move || {
                // Every tenth stores a dataset.
                let call = usize::from(client % 10 == 0);
                let (path, content_type, body) = calls[call];
                together.wait();
                // Who is cut off has been told nothing.
                if let Ok(reply) = exchange("POST", &urls[call], &[("Content-Type", content_type)], body.as_bytes()) {
                    let id = if path == "/train" { &reply.ok(202)["model_id"] } else { &reply.ok(201)["dataset_id"] };
                    told[call].lock().unwrap().push(id.as_i64().unwrap());
                }
            });
        }
        wait_until("a quarter of them has been answered", || {
            told.iter().map(|ids| ids.lock().unwrap().len()).sum::<usize>() >= CLIENTS / 4
        });
        service.process.kill();
    });
    let [models, datasets] = told.map(|ids| ids.into_inner().unwrap());
    assert!(models.len() + datasets.len() < CLIENTS, "the kill came too late");

    let service = settings().set("ROCKET_WORKERS", 2).serve();
    for id in models {
        assert_eq!(service.ended(id)["status"], "trained");
    }
    for id in datasets {
        assert_eq!(service.get(&format!("/dataset/{id}")).ok(200)["n_rows"], 500);
    }
    // Nor is anything half there of those who were cut off.
    for dataset in service.get("/datasets?limit=1000").ok(200)["datasets"].as_array().unwrap() {
        let request = json!({"dataset_id": dataset["dataset_id"], "target": "y", "l2_coef": [1.0]});
        service.submit(&request);
    }
    wait_until("all models have ended", || {
        database.value("SELECT count(*) FROM models WHERE status IN ('queued', 'training')") == "0"
    });
    assert_eq!(database.value("SELECT count(*) FROM models WHERE status <> 'trained'"), "0");
    let orphans = "SELECT count(*) FROM datasets WHERE
                   NOT is_standalone AND NOT EXISTS (SELECT FROM models WHERE dataset_id = datasets.id)
                   OR n_rows * jsonb_array_length(column_names) <>
                      (SELECT coalesce(sum(octet_length(cells) / CASE WHEN others IS NULL THEN 8 ELSE 4 END), 0) FROM dataset_chunks WHERE dataset_id = datasets.id)";
    wait_until("no orphan is left", || database.value(orphans) == "0");
}

#[test]
fn a_service_that_is_told_to_stop_finishes_what_it_has_begun() {
    let database = Database::new();
    let mut service = Settings::new(&database.url).serve();
    // Not over when the limit for requests is.
    let long = service.submit(&with(long_job(), json!({"data": generated_csv(2_000, 1_000), "n_folds": 60})));
    wait_until("the job is taken", || service.model(long)["status"] == "training");
    let body = example().to_string();
    let (first, second) = body.split_at(body.len() / 2);
    // The service asks for a body when it has begun to work on its request.
    let begin = || {
        let mut client = Raw::connect(&service);
        let length = body.len();
        assert!(client.send(format!(
            "POST /train HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        )));
        assert_eq!(client.reply().status, 100);
        assert!(client.send(first));
        client
    };
    let (mut prompt, mut endless) = (begin(), begin());
    let address = service.url("").replace("http://", "");
    let workers = service.process.children();
    assert_eq!(workers.len(), 1);

    let start = Instant::now();
    service.process.signal(Signal::SIGTERM);
    wait_until("it takes no more connections", || TcpStream::connect(&address).is_err());
    assert!(prompt.send(second));
    let short = prompt.reply().ok(202)["model_id"].as_i64().unwrap();
    let status = service.process.wait();
    assert!(status.success() && start.elapsed() < Duration::from_secs(12), "{status} after {:?}", start.elapsed());
    assert_eq!(endless.rest(), "");
    assert!(!workers.into_iter().any(is_running));
    let jobs = "SELECT string_agg(id || ' ' || status || ' ' || attempt, ', ' ORDER BY id) FROM models";
    assert_eq!(database.value(jobs), format!("{long} queued 0, {short} queued 0"));

    let next = Settings::new(&database.url).serve();
    wait_until("the long job is taken again", || next.model(long)["status"] == "training");
    next.post(&format!("/model/{long}/cancel"), &json!({})).ok(202);
    assert_eq!(next.ended(short)["status"], "trained");
}

#[test]
fn a_service_that_is_told_to_stop_waits_for_no_client_that_asks_for_nothing() {
    let database = Database::new();
    // Longer than any test waits.
    let settings = Settings::new(&database.url).set("ROCKET_SHUTDOWN", "{grace=600,mercy=600}");
    let mut service = settings.set("ROCKET_WORKERS", 0).serve();
    let mut idle = Raw::connect(&service);
    assert!(idle.send("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(idle.reply().status, 200);
    let mut silent = Raw::connect(&service);
    assert!(service.process.stop().success());
    assert!(idle.is_closed() && silent.is_closed());
}

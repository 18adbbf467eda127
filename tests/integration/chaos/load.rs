//! Clients that train without pause, try again until they are told of a model, and count.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{example, exchange, generated_csv, value, with};

const CLIENTS: usize = 4;
/// Between two submissions of a client.
const PACE: Duration = Duration::from_millis(30);
/// One in so many jobs takes a while to train, the others are over at once.
const LONG: usize = 40;
/// Longest that a request may take, whatever happens meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// The load, and what its clients were told.
pub(super) struct Load<'a> {
    address: &'a RwLock<String>,
    stop: AtomicBool,
    /// The models by the names that the clients gave them.
    told: Mutex<HashMap<String, i64>>,
    /// Requests that were answered with 503, cut off, or not answered.
    refused: AtomicUsize,
    probes: AtomicUsize,
    small: Value,
    long: Value,
}

/// Sets a flag when it goes.
pub(super) struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Load<'a> {
    /// Clients of the service at `address`, which may change.
    pub(super) fn new(address: &'a RwLock<String>) -> Self {
        let penalties: Vec<f64> = (0..20).map(|i| 1.0 + f64::from(i)).collect();
        let long =
            json!({"data": generated_csv(600, 200), "target": "y", "n_folds": 20, "l2_coef": penalties, "seed": 1});
        Self {
            address,
            stop: AtomicBool::new(false),
            told: Mutex::default(),
            refused: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            small: with(example(), json!({"seed": 1})),
            long,
        }
    }

    pub(super) fn stop_on_drop(&self) -> StopOnDrop<'_> {
        StopOnDrop(&self.stop)
    }

    /// Starts the clients.
    pub(super) fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in 1.. {
                    if self.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let request = if number % LONG == 0 { &self.long } else { &self.small };
                    self.insist(&format!("client {client}, job {number}"), request, "");
                    thread::sleep(PACE);
                }
            });
        }
    }

    /// Trains a small model and waits for it.
    pub(super) fn probe(&self) {
        let name = format!("probe {}", self.probes.fetch_add(1, Ordering::Relaxed));
        self.insist(&name, &self.small, "wait=5");
    }

    /// Submits a job until the service says that it has it, and where the client prefers to wait, that it is trained.
    fn insist(&self, name: &str, request: &Value, prefer: &str) {
        let body = with(request.clone(), json!({"name": name})).to_string();
        let key = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", &key), ("Prefer", prefer)];
        loop {
            let url = format!("{}/train", self.address.read().unwrap());
            let start = Instant::now();
            let reply = exchange("POST", &url, &headers, body.as_bytes());
            assert!(start.elapsed() < PATIENCE, "{name}: {:?} after {:?}", reply, start.elapsed());
            match reply {
                Ok(reply) if [200, 202].contains(&reply.status) => {
                    let id = reply.json()["model_id"].as_i64().unwrap();
                    let before = self.told.lock().unwrap().insert(name.to_owned(), id);
                    assert!(before.is_none_or(|before| before == id), "{name}: first {before:?}, then {id}");
                    if prefer.is_empty() || reply.status == 200 {
                        return;
                    }
                }
                Ok(reply) => {
                    reply.error(503);
                    assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                // The API was killed, or is not there.
                Err(_cut) => _ = self.refused.fetch_add(1, Ordering::Relaxed),
            }
            thread::sleep(PACE);
        }
    }

    /// Compares what the clients were told with what there is in the database.
    pub(super) fn accounts(&self, url: &str) -> Accounts {
        let told = self.told.lock().unwrap();
        let count = |sql: &str| value(url, sql).parse::<usize>().unwrap();
        let models: HashMap<String, Value> = serde_json::from_str(&value(
            url,
            "SELECT coalesce(json_object_agg(id, json_build_array(name, status)), '{}') FROM models",
        ))
        .unwrap();
        let ended = |name: &str, id: i64| {
            let model = models.get(&id.to_string());
            model.is_some_and(|model| model[0] == name && (model[1] == "trained" || model[1] == "failed"))
        };
        Accounts {
            submitted: told.len(),
            trained: count("SELECT count(*) FROM models WHERE status = 'trained'"),
            failed: count("SELECT count(*) FROM models WHERE status = 'failed'"),
            lost: told.iter().filter(|&(name, &id)| !ended(name, id)).count(),
            duplicated: models.len() - count("SELECT count(DISTINCT name) FROM models")
                + count(
                    "SELECT count(*) FROM (SELECT FROM changes WHERE new IN ('trained', 'failed')
                     GROUP BY model_id HAVING count(*) > 1) AS twice",
                ),
            unasked: models.len().saturating_sub(told.len()),
            not_lost_over: count(
                "SELECT count(*) FROM models WHERE status = 'failed' AND error NOT LIKE 'worker lost: 3 workers%'",
            ),
            results: count("SELECT count(DISTINCT (model, best)) FROM models WHERE status = 'trained'"),
            tried_again: count("SELECT count(*) FROM models WHERE attempt > 1"),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// What has become of the jobs.
pub(super) struct Accounts {
    submitted: usize,
    trained: usize,
    failed: usize,
    /// Jobs that a client was told of, and that are not there or have not ended.
    lost: usize,
    /// Jobs that one submission made several times, or that ended several times.
    duplicated: usize,
    /// Models that no client was told of.
    unasked: usize,
    /// Failures for another reason than three lost workers.
    not_lost_over: usize,
    /// Different results; there are two different jobs.
    results: usize,
    tried_again: usize,
    refused: usize,
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { submitted, trained, failed, lost, duplicated, tried_again, refused, .. } = self;
        write!(f, "submitted {submitted}, trained {trained}, failed {failed}, lost {lost}, duplicated {duplicated}; ")?;
        write!(f, "{tried_again} took more than one attempt, {refused} requests were refused or cut off and sent again")
    }
}

impl Accounts {
    #[track_caller]
    pub(super) fn check(&self) {
        assert_eq!((self.lost, self.duplicated, self.unasked, self.not_lost_over), (0, 0, 0, 0));
        assert_eq!(self.trained + self.failed, self.submitted);
        assert!(self.submitted > 0 && self.results <= 2, "{} different results of two jobs", self.results);
    }
}

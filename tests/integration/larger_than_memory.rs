//! Rows that no worker can hold at once, and rows that none can train on.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::{Database, Raw, Service, Settings, with};

/// Rows of eight numbers: the target, a weight, one of four folds, and features.
fn large_csv(n_rows: usize) -> String {
    const BLOCK: usize = 100_000;
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let mut block = String::new();
    for row in 0..BLOCK {
        let [a, b, c, d, e] = [(); 5].map(|()| next());
        let y = f64::from(a) - 0.25 * f64::from(b) + f64::from(next()) / 7.0;
        writeln!(block, "{y:.2},{}.5,{},{a},{b},{c},.{d},-{e}", row % 3, next() % 4).unwrap();
    }
    format!("y,w,f,a,b,c,d,e\n{}", block.repeat(n_rows / BLOCK))
}

#[test]
fn rows_larger_than_a_worker_may_hold_are_trained_to_the_same_bits() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    // 128 MB of numbers, for a worker of 96 MiB.
    let csv = large_csv(2_000_000);
    let dataset = service.post_as("text/csv", "/datasets", &csv).ok(201)["dataset_id"].clone();
    let plain = json!({"dataset_id": dataset, "target": "y", "l2_coef": [0.1, 1], "seed": 3});
    let requests = [
        json!({}),
        json!({"l2_coef": null, "n_folds": 40}),
        json!({"fold_column": "f", "seed": null}),
        json!({"weight_column": "w"}),
        json!({"standardize": true, "loss": "sum", "n_folds": 2}),
        json!({"l2_coef": [0], "fit_intercept": false}),
        json!({"l2_coef": [0, 10], "fold_column": "f", "weight_column": "w", "standardize": true, "seed": null}),
    ];
    let trained = |memory: &str| {
        let ids: Vec<i64> =
            requests.iter().map(|fields| service.submit(&with(plain.clone(), fields.clone()))).collect();
        let mut worker = Settings::new(&database.url).set("ROCKET_WORKER_MEMORY", memory).worker();
        let models: Vec<Value> = ids.into_iter().map(|id| service.ended(id)).collect();
        let peak = worker.memory("VmHWM");
        worker.stop();
        (models, peak)
    };
    let (streamed, _) = trained("96 MiB");
    let (held, peak) = trained("1 GiB");
    assert!(peak > 128_000, "all rows are kept where there is room: {peak} kB");
    for ((streamed, held), request) in streamed.iter().zip(&held).zip(&requests) {
        assert_eq!(streamed["status"], "trained", "{request}: {streamed}");
        for part in ["model", "cv_results", "best", "metrics", "warnings"] {
            assert_eq!(streamed[part], held[part], "{request}");
        }
    }
}

#[test]
fn rows_that_no_worker_can_train_on_are_refused_while_they_arrive() {
    let database = Database::new();
    let limited = || Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_WORKER_MEMORY", "64 MiB");
    let service = limited().serve();
    let columns: Vec<String> = (0..5_001).map(|column| format!("x{column}")).collect();
    let header = columns.join(",") + "\n";
    let rows = |n| ("1,".repeat(5_000) + "2\n").repeat(n);
    // Few enough rows could be trained, so only their number tells.
    let few = format!("{header}{}", rows(50));
    let id = service.post_as("text/csv", "/train?target=x0", &few).ok(202)["model_id"].clone();
    let mut client = Raw::connect(&service);
    let head =
        "POST /train?target=x0 HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 9999999999\r\n\r\n";
    assert!(client.send(head) && client.send(&header) && client.send(rows(1_000)));
    // Most of it has not been sent.
    let error = client.reply().error(422);
    assert!(
        error.starts_with("data: to train on these few rows of 5001 columns with 5 folds takes at least 0."),
        "{error}"
    );
    assert!(error.ends_with("GiB of memory, but a worker may take 0.06 GiB (worker_memory)"), "{error}");
    assert_eq!(service.get("/datasets").ok(200)["datasets"].as_array().map(Vec::len), Some(1), "that of model {id}");
    assert_eq!(database.stored_rows(), "1 1 1");

    // Without a training there is nothing to refuse: other workers may have more room.
    let csv = format!("{header}{}", rows(1_000));
    let dataset = service.post_as("text/csv", "/datasets", &csv).ok(201)["dataset_id"].clone();
    let request = json!({"dataset_id": dataset, "target": "x0"});
    assert_eq!(service.post("/train", &request).error(422).split(" takes").next(), error.split(" takes").next());
    let unlimited = Settings::new(&database.url).set("ROCKET_WORKERS", 0).set("ROCKET_WORKER_MEMORY", 0).serve();
    unlimited.submit(&request);
}

//! What the tests stand on: a throwaway PostgreSQL, the service's processes, and an HTTP client.

mod client;
mod database;
mod folder;
mod process;
mod python;
mod raw;
mod service;

pub(crate) use client::{Reply, exchange};
pub(crate) use database::{Database, Server, execute, private_program, record_changes, value};
pub(crate) use folder::Folder;
pub(crate) use process::{Process, children_of, is_running, ridgeline, wait_until};
pub(crate) use python::{python, python_script};
pub(crate) use raw::Raw;
pub(crate) use service::{Service, Settings};

use serde_json::{Value, json};

/// A new API key of the database's service.
#[track_caller]
pub(crate) fn new_key(database: &Database, name: &str) -> String {
    let output = ridgeline(&["key", "add", name]).env("DATABASE_URL", &database.url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The example of the API, with enough rows.
pub(crate) fn example() -> Value {
    json!({
        "data": "a,b,c\n1.0,0.0,2.0\n2.5,1.0,-1.0\n3.0,4.0,0.5\n0.5,-2.0,1.5\n4.0,3.0,3.0\n2.0,2.0,-0.5\n",
        "target": "a",
        "n_folds": 4,
        "fit_intercept": true,
        "l2_coef": [1.0, 10.0, 100.0],
    })
}

/// `object` with some fields set, or removed where the value is null.
pub(crate) fn with(mut object: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
    object
}

/// A CSV of pseudo-random numbers, target `y`, features `x0` and on. The same for the same arguments.
pub(crate) fn generated_csv(n_rows: usize, n_features: usize) -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 23) as f64 - 1.0
    };
    let mut csv = String::from("y");
    for feature in 0..n_features {
        csv += &format!(",x{feature}");
    }
    for _ in 0..n_rows {
        csv += &format!("\n{:.6}", next());
        for _ in 0..n_features {
            csv += &format!(",{:.6}", next());
        }
    }
    csv + "\n"
}

/// A job that keeps a worker busy for a second or more.
pub(crate) fn long_job() -> Value {
    let penalties: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i)).collect();
    json!({"data": generated_csv(1_200, 500), "target": "y", "n_folds": 20, "l2_coef": penalties, "seed": 1})
}

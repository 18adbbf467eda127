//! The engine as the service runs it: its kernels, its parameters, and the same bits from every worker.

use serde_json::{Value, json};

use crate::support::{Database, Service, Settings, example, generated_csv, with};

/// What the worker's log says that it computes with.
fn kernels(settings: Settings) -> String {
    settings.worker().wait_for_line("computes with the OpenBLAS kernels for ")
}

#[test]
fn a_worker_runs_on_kernels_that_its_cpu_deserves() {
    let database = Database::new();
    let core = kernels(Settings::new(&database.url));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        for generic in ["Prescott", "Core2", "Nehalem", "Sandybridge", "generic", "Generic", "Unknown"] {
            assert_ne!(core, generic);
        }
    }
    assert!(!core.is_empty());
}

#[test]
fn a_users_own_choice_of_kernels_is_respected() {
    let database = Database::new();
    let core = kernels(Settings::new(&database.url).set("OPENBLAS_CORETYPE", "Nehalem"));
    assert_eq!(core, "Nehalem");
}

#[test]
fn every_worker_and_number_of_threads_gives_the_same_bits() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let request = json!({"data": generated_csv(3_000, 12), "target": "y", "n_folds": 7, "seed": 5});
    let results: Vec<Value> = [1, 2, 4, 1]
        .map(|threads| {
            let _worker = Settings::new(&database.url).set("ROCKET_TRAINING_THREADS", threads).worker();
            let model = service.train(&request);
            ["model", "cv_results", "best", "metrics", "warnings"].iter().map(|field| model[field].clone()).collect()
        })
        .to_vec();
    assert!(results.iter().all(|result| result == &results[0]));
}

#[test]
fn the_automatic_grid_is_reported_with_its_scores() {
    let database = Database::new();
    let service = Service::start(&database);
    let model = service.train(&json!({"data": generated_csv(200, 5), "target": "y", "seed": 1}));
    let penalties: Vec<f64> =
        model["cv_results"].as_array().unwrap().iter().map(|score| score["param_value"].as_f64().unwrap()).collect();
    assert!(penalties.len() >= 10 && penalties.is_sorted() && penalties[0] > 0.0, "{penalties:?}");
    assert_eq!(model["params"]["l2_coef"], Value::Null);
}

#[test]
fn weights_of_two_are_rows_written_twice() {
    let database = Database::new();
    let service = Service::start(&database);
    let rows = [(1.0, 2.0, 1), (2.5, -1.0, 2), (0.5, 3.0, 1), (4.0, 0.5, 2), (3.0, 1.5, 1), (-1.0, 2.5, 1)];
    let [mut weighted, mut repeated] = [String::from("y,x,w,f\n"), String::from("y,x,f\n")];
    for (row, (y, x, weight)) in rows.iter().enumerate() {
        weighted += &format!("{y},{x},{weight},{}\n", row % 3);
        repeated += &format!("{y},{x},{}\n", row % 3).repeat(*weight);
    }
    let request = json!({"target": "y", "fold_column": "f", "l2_coef": [0.1, 1.0]});
    let by_weight = service.train(&with(request.clone(), json!({"data": weighted, "weight_column": "w"})));
    let by_row = service.train(&with(request, json!({"data": repeated})));
    let close = |a: &Value, b: &Value| (a.as_f64().unwrap() / b.as_f64().unwrap() - 1.0).abs() <= 1e-12;
    assert!(close(&by_weight["model"]["coef"]["x"], &by_row["model"]["coef"]["x"]), "{by_weight} {by_row}");
    assert!(close(&by_weight["model"]["intercept"], &by_row["model"]["intercept"]), "{by_weight} {by_row}");
    assert!(close(&by_weight["best"]["mean_mse"], &by_row["best"]["mean_mse"]), "{by_weight} {by_row}");
    assert_eq!(by_weight["metrics"]["n_folds"], 3);
}

#[test]
fn standardised_penalties_do_not_depend_on_units() {
    let database = Database::new();
    let service = Service::start(&database);
    let train = |unit: f64| {
        let rows: String = (0..20).map(|i| format!("{},{},{}\n", i % 7, f64::from(i * i % 11) * unit, i % 3)).collect();
        let data = format!("y,b,c\n{rows}");
        service.train(&json!({"data": data, "target": "y", "seed": 3, "standardize": true, "l2_coef": [0.5]}))
    };
    let [metres, millimetres] = [train(1.0), train(1000.0)];
    let coef = |model: &Value| model["model"]["coef"]["b"].as_f64().unwrap();
    assert!((coef(&metres) / (coef(&millimetres) * 1000.0) - 1.0).abs() <= 1e-12);
}

#[test]
fn warnings_and_metrics_reach_the_document() {
    let database = Database::new();
    let service = Service::start(&database);
    let data = "a,b,c,same\n1,0,2,5\n2.5,1,-1,5\n3,4,0.5,5\n0.5,-2,1.5,5\n4,3,3,5\n2,2,-0.5,5\n";
    let model = service.train(&with(example(), json!({"data": data, "l2_coef": [1e-9, 1e-8], "seed": 1})));
    let warnings = model["warnings"].to_string();
    assert!(warnings.contains("same") && warnings.contains("best penalty"), "{warnings}");
    assert_eq!(model["model"]["coef"]["same"], 0.0);
    let metrics = &model["metrics"];
    let dof = metrics["effective_dof"].as_f64().unwrap();
    assert!((2.9..=3.0).contains(&dof), "two features that matter and the intercept, hardly penalised: {metrics}");
    let [r2, rmse] = ["r2", "rmse"].map(|name| metrics[name].as_f64().unwrap());
    assert!((0.0..=1.0).contains(&r2) && rmse > 0.0, "{metrics}");
}

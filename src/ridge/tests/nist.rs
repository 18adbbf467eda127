//! The eleven linear sets of NIST's Statistical Reference Datasets against exact arithmetic, if the folder with their
//! truths is there.

use super::super::{Folds, Params};
use super::digits::digits;
use super::{params, run};
use std::path::Path;

#[test]
fn nist_sets_have_the_promised_digits() {
    let Some(folder) = std::env::var_os("RIDGELINE_REFERENCE") else {
        return;
    };
    let folder = Path::new(&folder).join("nist");
    let truth: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("truth.json")).unwrap()).unwrap();
    let sets = truth.as_object().unwrap();
    assert_eq!(sets.len(), 11);
    for (name, set) in sets {
        let text = std::fs::read_to_string(folder.join(format!("{name}.csv"))).unwrap();
        let (header, rows) = text.split_once('\n').unwrap();
        let header: Vec<&str> = header.trim().split(',').collect();
        let values: Vec<f64> =
            rows.lines().flat_map(|line| line.split(',').map(|cell| cell.parse().unwrap())).collect();
        let folds = Folds::Random { n_folds: values.len() / header.len(), seed: 0 };
        for fit in set["fits"].as_array().unwrap() {
            let penalty = fit["l2_coef"].as_f64().unwrap();
            let given = Params { fit_intercept: set["fit_intercept"].as_bool().unwrap(), ..params(folds, &[penalty]) };
            let report = run(&values, header.len(), given);
            let promised = if penalty == 0.0 { 8.0 } else { 10.0 };
            assert!(
                digits(report.cv[0].mean_mse, &fit["loo_mean_mse"]) >= promised,
                "{name}, penalty {penalty}: mean MSE"
            );
            assert!(digits(report.intercept, &fit["intercept"]) >= 12.0, "{name}, penalty {penalty}: intercept");
            for (column, found) in header[1..].iter().zip(&report.coef) {
                assert!(digits(*found, &fit["coef"][column]) >= 12.0, "{name}, penalty {penalty}: {column}");
            }
        }
    }
}

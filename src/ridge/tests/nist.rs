//! The eleven linear sets of NIST's Statistical Reference Datasets against exact arithmetic.
use super::super::*;
use std::sync::atomic::AtomicBool;

#[test]
fn nist() {
    let Ok(dir) = std::env::var("RIDGELINE_REFERENCE") else { return };
    let truth: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{dir}/nist/truth.json")).unwrap()).unwrap();
    for (name, t) in truth.as_object().unwrap() {
        let text = std::fs::read_to_string(format!("{dir}/nist/{name}.csv")).unwrap();
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap().split(',').collect();
        let values: Vec<f64> = lines.flat_map(|l| l.split(',').map(|v| v.trim().parse::<f64>().unwrap())).collect();
        let n = values.len() / head.len();
        for fit in t["fits"].as_array().unwrap() {
            let lambda = fit["l2_coef"].as_f64().unwrap();
            let params = Params {
                target: 0,
                weight: None,
                folds: Folds::Random { n_folds: n, seed: 0 },
                fit_intercept: t["fit_intercept"].as_bool().unwrap(),
                loss: Loss::Mean,
                standardize: false,
                penalties: Some(vec![lambda]),
            }
            .check(n, head.len())
            .unwrap();
            let m = Matrix::new(&values, head.len()).unwrap();
            let stop = AtomicBool::new(false);
            let r = cross_validate(&m, &params, &Control { n_threads: 1, stop: &stop, progress: &|_| () }).unwrap();
            let lre = |v: f64, s: &serde_json::Value| {
                let t: f64 = s.as_str().unwrap().parse().unwrap();
                let e = if t == 0.0 || t.abs() < 1e-100 { (v - t).abs() } else { ((v - t) / t).abs() };
                -e.max(1e-16).log10()
            };
            let mut worst = lre(r.intercept, &fit["intercept"]);
            for (h, c) in head[1..].iter().zip(&r.coef) {
                worst = worst.min(lre(*c, &fit["coef"][h]));
            }
            eprintln!(
                "{name:10} {lambda:8} coef {worst:5.1} loo {:5.1} cond {:?} dof {} r2 {:?} {:e}",
                lre(r.cv[0].mean_mse, &fit["loo_mean_mse"]),
                r.condition_number,
                r.effective_dof,
                r.r2,
                r.cv[0].mean_mse
            );
        }
    }
}

//! `GET /model/N`: the document of a model, from the queue to its end.

use serde_json::{Value, json};

use crate::support::{Database, Service, example, wait_until, with};

#[test]
fn a_model_that_does_not_exist_is_not_found() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    for id in ["1", "0", "-1", "+1", "01x", "abc", "1.5", "2147483648", "99999999999999999999", "%00", "%F0%9F%98%80"] {
        let error = service.get(&format!("/model/{id}")).error(404);
        assert!(error.starts_with("there is no model"), "{id}: {error}");
    }
}

#[test]
fn a_queued_model_says_how_many_are_before_it() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let ids = [(); 3].map(|()| service.submit(&example()));
    for (position, id) in (1..).zip(ids) {
        let model = service.model(id);
        assert_eq!((&model["status"], &model["queue_position"]), (&json!("queued"), &json!(position)));
        for field in ["model", "cv_results", "best", "metrics", "started_at", "finished_at"] {
            assert_eq!(model[field], Value::Null, "{field}");
        }
        assert_eq!(model["attempt"], 0);
        assert!(model.get("error").is_none() && model.get("progress").is_none(), "{model}");
    }
}

#[test]
fn a_trained_model_tells_all_that_was_asked_and_found() {
    let database = Database::new();
    let service = Service::start(&database);
    let model = service.train(&with(example(), json!({"name": "first", "seed": 42})));

    assert_eq!((&model["status"], &model["name"], &model["attempt"]), (&json!("trained"), &json!("first"), &json!(1)));
    let times = ["created_at", "started_at", "finished_at"].map(|field| model[field].as_str().unwrap().to_owned());
    assert!(times.is_sorted() && times.iter().all(|time| time.len() == 24 && time.ends_with('Z')), "{times:?}");
    let scores = model["cv_results"].as_array().unwrap();
    let penalties: Vec<&Value> = scores.iter().map(|score| &score["param_value"]).collect();
    assert_eq!(penalties, [1.0, 10.0, 100.0]);
    for score in scores {
        let errors: Vec<f64> = score["fold_mse"].as_array().unwrap().iter().map(|mse| mse.as_f64().unwrap()).collect();
        let mean = errors.iter().sum::<f64>() / 4.0;
        assert!((score["mean_mse"].as_f64().unwrap() / mean - 1.0).abs() < 1e-14, "{score}");
        assert_eq!(errors.len(), 4);
    }
    let lowest =
        scores.iter().min_by(|a, b| a["mean_mse"].as_f64().unwrap().total_cmp(&b["mean_mse"].as_f64().unwrap()));
    let lowest = lowest.unwrap();
    assert_eq!(model["best"], json!({"param_value": lowest["param_value"], "mean_mse": lowest["mean_mse"]}));
    assert_eq!((&model["metrics"]["n_rows"], &model["metrics"]["n_features"]), (&json!(6), &json!(2)));
    assert!(model.get("error").is_none() && model.get("queue_position").is_none(), "{model}");
}

#[test]
fn coefficients_stand_in_the_order_of_the_columns() {
    let database = Database::new();
    let service = Service::start(&database);
    let csv = "zz,y,b,long_name,a\n1,2,3,4,5\n2,1,0,1,7\n5,5,1,2,2\n0,1,1,8,3\n4,4,2,1,1\n";
    let id = service.submit(&json!({"data": csv, "target": "y", "l2_coef": [0.1]}));
    service.ended(id);
    let text = service.get(&format!("/model/{id}")).body;
    let positions = ["\"zz\":", "\"b\":", "\"long_name\":", "\"a\":"].map(|name| text.find(name).unwrap());
    assert!(positions.is_sorted(), "{text}");
}

#[test]
fn the_intercept_is_zero_where_none_is_fitted() {
    let database = Database::new();
    let service = Service::start(&database);
    let model = service.train(&with(example(), json!({"fit_intercept": false})));
    assert_eq!(model["model"]["intercept"], 0.0);
}

#[test]
fn values_in_the_database_survive_to_the_last_bit() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = service.train(&example())["model_id"].clone();
    let extremes =
        [5e-324, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2, 1.0 / 3.0, -2.5e-310, 1e22, 9_007_199_254_740_993.0];
    for value in extremes {
        let [number, negative] = [value, -value].map(|value| serde_json::to_string(&value).unwrap());
        database.execute(&format!(
            "UPDATE models SET model = jsonb_set(jsonb_set(model, '{{coef,b}}', '{number}'), '{{intercept}}', '{negative}'),
             cv_results = jsonb_set(cv_results, '{{1,fold_mse,2}}', '{number}') WHERE id = {id}"
        ));
        let bits = |value: &Value| value.as_f64().unwrap().to_bits();
        let model = || service.model(id.as_i64().unwrap());
        // The service has to hear first that what it keeps of the model has changed.
        wait_until(&number, || bits(&model()["model"]["coef"]["b"]) == value.to_bits());
        let model = model();
        assert_eq!(bits(&model["model"]["intercept"]), (-value).to_bits(), "{number}");
        assert_eq!(bits(&model["cv_results"][1]["fold_mse"][2]), value.to_bits(), "{number}");
    }
}

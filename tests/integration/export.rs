//! `GET /model/N?format=`: a model that predicts the same elsewhere.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Database, Folder, Service, example, python, python_script, with};

/// A reply as bytes, which need not be text, after a look at its headers.
#[track_caller]
fn download(service: &Service, id: &Value, format: &str, content_type: &str, name: &str) -> Vec<u8> {
    let mut reply = ureq::get(service.url(&format!("/model/{id}?format={format}"))).call().unwrap();
    let header = |name: &str| reply.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), content_type);
    assert_eq!(header("content-disposition"), format!("attachment; filename=\"{name}\""));
    reply.body_mut().read_to_vec().unwrap()
}

/// Three features of very different scales, with names that need quoting everywhere.
const CSV: &str = "\"say \"\"hi\"\", \\n\",y,größe # ',x\n1,2,30000,0.001\n2,1,10000,0.004\n4,4,-20000,0.002\n0.5,3,50000,-0.003\n3,0,7000,0.005\n";
/// The rows of a prediction, in the order of the features.
const ROWS: [[f64; 3]; 4] = [[1.5, 1234.5, 0.0007], [0.0, 0.0, 0.0], [-3.25, 99999.0, 0.125], [1e-3, -5e4, 2.0]];

fn model(service: &Service) -> Value {
    let model =
        service.train(&json!({"data": CSV, "target": "y", "n_folds": 2, "l2_coef": [1e-6], "name": "a \"name\"\n# b"}));
    model["model_id"].clone()
}

fn predictions(service: &Service, id: &Value) -> Vec<f64> {
    let lines = ROWS.map(|row| row.map(|cell| format!("{cell:?}")).join(","));
    let csv = format!("\"say \"\"hi\"\", \\n\",größe # ',x\n{}\n", lines.join("\n"));
    let result = service.predict(id, &csv);
    result.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn onnxruntime_predicts_the_same_to_the_precision_of_its_floats() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = model(&service);
    let folder = Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let [file, rows] = ["model.onnx", "rows.json"].map(|name| folder.0.join(name));
    let bytes = download(&service, &id, "onnx", "application/octet-stream", "model-1.onnx");
    std::fs::write(&file, bytes).unwrap();
    std::fs::write(&rows, json!(ROWS).to_string()).unwrap();
    let said = python_script("onnx_export.py", &[&file, &rows]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["input"], json!(["input", "tensor(float)", ["rows", 3]]));
    assert_eq!(said["output"], json!(["prediction", "tensor(float)", ["rows", 1]]));
    let metadata = json!({"columns": ["say \"hi\", \\n", "größe # '", "x"], "target": "y", "name": "a \"name\"\n# b", "model_id": 1});
    assert_eq!(said["metadata"], metadata);
    let document = service.model(1);
    let coef: Vec<f64> = document["model"]["coef"].as_object().unwrap().values().map(|w| w.as_f64().unwrap()).collect();
    for (row, expected) in predictions(&service, &id).into_iter().enumerate() {
        let found = said["predictions"][row].as_f64().unwrap();
        let terms: f64 = coef.iter().zip(ROWS[row]).map(|(w, x)| (w * x).abs()).sum::<f64>() + 1.0;
        // Rounding of coefficients, cells, products and sums to 24 bits.
        assert!((found - expected).abs() <= 8.0 * terms * f64::from(f32::EPSILON), "{found} {expected}");
    }
}

#[test]
fn the_python_program_predicts_the_same_as_a_module_and_as_a_filter() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = model(&service);
    let program = download(&service, &id, "python", "text/x-python; charset=utf-8", "model_1.py");
    let folder = Folder::new();
    std::fs::create_dir(&folder.0).unwrap();
    let file = folder.0.join("model_1.py");
    std::fs::write(&file, program).unwrap();
    let expected = predictions(&service, &id);

    let check = "import json, sys, numpy, model_1 as model\n\
        rows = json.loads(sys.argv[1])\n\
        print(json.dumps([model.predict([dict(zip(model.COEF, row)) for row in rows]),\n\
                          (numpy.array(rows) @ list(model.COEF.values()) + model.INTERCEPT).tolist(), model.NAME, model.TARGET]))";
    let output =
        Command::new(python()).args(["-c", check, &json!(ROWS).to_string()]).current_dir(&folder.0).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said[2], &said[3]), (&json!("a \"name\"\n# b"), &json!("y")));

    let mut child = Command::new(python()).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = ROWS.map(|row| format!("extra,{:?},{:?},{:?}", row[2], row[1], row[0]));
    let csv = format!("\u{feff}note,x,größe # ',\"say \"\"hi\"\", \\n\"\n{}\n", lines.join("\n"));
    child.stdin.take().unwrap().write_all(csv.as_bytes()).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("prediction"));
    let filtered: Vec<f64> = lines.map(|line| line.parse().unwrap()).collect();

    assert_eq!(filtered.len(), expected.len());
    for (row, expected) in expected.into_iter().enumerate() {
        for found in [said[0][row].as_f64().unwrap(), said[1][row].as_f64().unwrap(), filtered[row]] {
            assert!((found - expected).abs() <= 1e-15 * expected.abs().max(1.0), "{found:?} {expected:?}");
        }
    }
}

#[test]
fn exports_that_cannot_be_are_refused() {
    let database = Database::new();
    let service = Service::start(&database);
    let id = model(&service);
    assert_eq!(service.get(&format!("/model/{id}?format=json")).ok(200), service.model(1));
    for format in ["pmml", "", "ONNX", "onnx%00"] {
        let error = service.get(&format!("/model/{id}?format={format}")).error(422);
        assert!(error.starts_with("format: expected one of json, onnx, python"), "{error}");
    }
    service.get("/model/99?format=onnx").error(404);
    service.get("/model/x?format=python").error(404);
    database.execute("UPDATE models SET model = jsonb_set(model, '{coef,x}', '1e39')");
    let error = service.get(&format!("/model/{id}?format=onnx")).error(422);
    assert!(error.contains("the coefficient of \"x\" is 1e39"), "{error}");
    let other = Service::without_workers(&database);
    drop(service);
    let queued = other.submit(&with(example(), json!({})));
    for format in ["onnx", "python"] {
        let error = other.get(&format!("/model/{queued}?format={format}")).error(409);
        assert_eq!(error, format!("model {queued} is not trained: its status is queued"));
    }
}

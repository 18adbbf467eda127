//! The Open Inference Protocol, version 2, over HTTP: what clients of `KServe` and Triton speak.
//!
//! A model takes one input of shape `[rows, features]`, or one input for each of its columns by name; it has one output of
//! shape `[rows]`. Tensors come and go as JSON, or as bytes behind the JSON: the protocol's binary data extension.

mod request;
mod tensor;

use rocket::http::{ContentType, Header};
use rocket::response::{self, Responder};
use rocket::serde::json::Json;
use rocket::{Request, Response, Route, State, get, post, routes};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::auth::{Caller, Uploader};
use super::body::RequestBody;
use super::error::ApiError;
use super::health;
use super::metrics::{Metrics, Purpose};
use super::models::{parse_id, unless_absent};
use super::predict::{evaluate, trained};
use crate::config::Config;
use crate::db::Pool;
use crate::db::models;
use request::{Header as JsonLength, InferRequest};

/// The names of a model's tensors.
const INPUT: &str = "input";
const OUTPUT: &str = "prediction";
/// The header that says where the JSON ends and bytes begin.
const LENGTH: &str = "Inference-Header-Content-Length";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![server, live, ready, model, model_ready, infer]
}

/// What the server is.
#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

#[get("/v2")]
fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: "ridgeline", version: env!("CARGO_PKG_VERSION"), extensions: ["binary_tensor_data"] })
}

#[get("/v2/health/live")]
fn live() -> Json<Value> {
    Json(json!({"live": true}))
}

#[get("/v2/health/ready")]
async fn ready(pool: &State<Pool>) -> Result<Json<Value>, ApiError> {
    health::check(pool).await?;
    Ok(Json(json!({"ready": true})))
}

/// What a model takes and gives.
#[derive(Serialize)]
struct ModelMetadata {
    name: String,
    platform: &'static str,
    inputs: [TensorMetadata; 1],
    outputs: [TensorMetadata; 1],
    /// The columns in the order of the input, which may also come as an input each, by name.
    parameters: ModelParameters,
}

#[derive(Serialize)]
struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    /// -1 for any number of rows.
    shape: Vec<i64>,
}

#[derive(Serialize)]
struct ModelParameters {
    columns: Vec<String>,
}

#[get("/v2/models/<id>")]
async fn model(id: &str, caller: Caller, pool: &State<Pool>) -> Result<Json<ModelMetadata>, ApiError> {
    let id = parse_id(id)?;
    let owner = caller.owner();
    let found = pool.run(move |conn| Ok(models::find_predictor(conn, owner, id)?)).await;
    let model = trained(found.map_err(|error| unless_absent(error, id))?, id)?;
    let input = TensorMetadata { name: INPUT, datatype: "FP64", shape: vec![-1, model.features.len() as i64] };
    let output = TensorMetadata { name: OUTPUT, datatype: "FP64", shape: vec![-1] };
    Ok(Json(ModelMetadata {
        name: id.to_string(),
        platform: "ridgeline",
        inputs: [input],
        outputs: [output],
        parameters: ModelParameters { columns: model.features },
    }))
}

#[get("/v2/models/<id>/ready")]
async fn model_ready(id: &str, caller: Caller, pool: &State<Pool>) -> Result<Json<Value>, ApiError> {
    let id = parse_id(id)?;
    let owner = caller.owner();
    let found = pool.run(move |conn| Ok(models::find_predictor(conn, owner, id)?)).await;
    trained(found.map_err(|error| unless_absent(error, id))?, id)?;
    Ok(Json(json!({"name": id.to_string(), "ready": true})))
}

/// The reply: JSON, and the numbers behind it where the client asked for that.
struct Inference {
    head: String,
    binary: Option<Vec<u8>>,
}

impl<'r> Responder<'r, 'static> for Inference {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let Some(binary) = self.binary else {
            return (ContentType::JSON, self.head).respond_to(request);
        };
        let length = Header::new(LENGTH, self.head.len().to_string());
        let body = [self.head.into_bytes(), binary].concat();
        Response::build_from((ContentType::Binary, body).respond_to(request)?).header(length).ok()
    }
}

#[post("/v2/models/<id>/infer", data = "<body>")]
async fn infer(
    id: &str,
    uploader: Uploader,
    body: RequestBody<'_>,
    length: JsonLength,
    config: &State<Config>,
    pool: &State<Pool>,
    metrics: &State<Metrics>,
) -> Result<Inference, ApiError> {
    let id = parse_id(id)?;
    let (caller, body) = uploader.admit(body).await?;
    let bytes = body.read_bytes(config.predict_limit, config).await?;
    let metrics = metrics.inner().clone();
    let owner = caller.owner();
    let found = pool.run(move |conn| Ok(models::find_predictor(conn, owner, id)?)).await;
    let model = trained(found.map_err(|error| unless_absent(error, id))?, id)?;
    super::on_blocking_thread(move || {
        let request = InferRequest::read(&bytes, length, id)?;
        let cells = request.cells(&model.features)?;
        let result = evaluate(&model, &cells, |row| format!("inputs: row {}", row + 1))?;
        metrics.received(Purpose::Prediction, bytes.len(), result.len());
        reply(id, request.id.clone(), &result, request.wants_binary()?)
    })
    .await
}

/// The JSON fields before, and the numbers in it or behind it.
fn reply(id: i32, request_id: Option<String>, result: &[f64], as_binary: bool) -> Result<Inference, ApiError> {
    let binary: Option<Vec<u8>> = as_binary.then(|| result.iter().flat_map(|value| value.to_le_bytes()).collect());
    let mut output = Map::from_iter([
        ("name".to_owned(), json!(OUTPUT)),
        ("datatype".to_owned(), json!("FP64")),
        ("shape".to_owned(), json!([result.len()])),
    ]);
    match &binary {
        Some(bytes) => output.insert("parameters".to_owned(), json!({"binary_data_size": bytes.len()})),
        None => output.insert("data".to_owned(), json!(result)),
    };
    let mut head =
        Map::from_iter([("model_name".to_owned(), json!(id.to_string())), ("outputs".to_owned(), json!([output]))]);
    if let Some(request_id) = request_id {
        head.insert("id".to_owned(), Value::from(request_id));
    }
    Ok(Inference { head: Value::from(head).to_string(), binary })
}

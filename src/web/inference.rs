//! The Open Inference Protocol, version 2, over HTTP: what clients of `KServe` and Triton speak.
//!
//! A model takes one input of shape `[rows, features]`, or one input for each of its columns by name; it has one output of
//! shape `[rows]`. Tensors come and go as JSON, or as bytes behind the JSON: the protocol's binary data extension.

mod request;
mod tensor;

use std::collections::HashMap;

use rocket::http::{ContentType, Header};
use rocket::response::{self, Responder};
use rocket::serde::json::Json;
use rocket::{Request, Response, Route, State, get, post, routes};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::auth::{Caller, Uploader};
use super::body::RequestBody;
use super::error::{self, ApiError};
use super::health;
use super::ids;
use super::library::Library;
use super::metrics::{Metrics, Purpose};
use super::models::parse_id;
use super::predict::evaluate;
use super::query;
use crate::config::Config;
use crate::db::Pool;
use request::{Header as JsonLength, InferRequest};

/// The names of a model's tensors.
const INPUT: &str = "input";
const OUTPUT: &str = "prediction";
/// The header that says where the JSON ends and bytes begin.
const LENGTH: &str = "Inference-Header-Content-Length";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&[], routes![v2_server, v2_live, v2_ready, v2_model, v2_model_ready, v2_infer])
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(v2_server, v2_live, v2_ready, v2_model, v2_model_ready, v2_infer))]
pub(super) struct Calls;

/// What the server is.
#[derive(Serialize, ToSchema)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

/// What the server is
#[utoipa::path(
    tag = "inference",
    security(()),
    responses((status = 200, description = "Its name, version and extensions.", body = ServerMetadata), error::Always)
)]
#[get("/v2")]
fn v2_server() -> Json<ServerMetadata> {
    Json(ServerMetadata { name: "ridgeline", version: env!("CARGO_PKG_VERSION"), extensions: ["binary_tensor_data"] })
}

/// Whether the process is up.
#[derive(Serialize, ToSchema)]
struct Live {
    live: bool,
}

/// The process is up, by the inference protocol
#[utoipa::path(
    tag = "inference",
    security(()),
    responses((status = 200, description = "It is.", body = Live), error::Always)
)]
#[get("/v2/health/live")]
fn v2_live() -> Json<Live> {
    Json(Live { live: true })
}

/// Whether models can be asked.
#[derive(Serialize, ToSchema)]
struct Ready {
    ready: bool,
}

/// The service is ready, by the inference protocol
#[utoipa::path(
    tag = "inference",
    security(()),
    responses((status = 200, description = "It is.", body = Ready), error::NotReady)
)]
#[get("/v2/health/ready")]
async fn v2_ready(pool: &State<Pool>) -> Result<Json<Ready>, ApiError> {
    health::check(pool).await?;
    Ok(Json(Ready { ready: true }))
}

/// What a model takes and gives.
#[derive(Serialize, ToSchema)]
struct ModelMetadata {
    name: String,
    platform: &'static str,
    inputs: [TensorMetadata; 1],
    outputs: [TensorMetadata; 1],
    /// The columns in the order of the input, which may also come as an input each, by name.
    parameters: ModelParameters,
}

#[derive(Serialize, ToSchema)]
struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    /// -1 for any number of rows.
    shape: Vec<i64>,
}

#[derive(Serialize, ToSchema)]
struct ModelParameters {
    columns: Vec<String>,
}

/// What a model takes and gives
#[utoipa::path(
    tag = "inference",
    params(("id" = i32, Path, description = ids::MODEL, minimum = 1)),
    responses(
        (status = 200, description = "Its tensors.", body = ModelMetadata),
        error::NotFound,
        error::NotTrained,
        error::Usual
    )
)]
#[get("/v2/models/<id>")]
async fn v2_model(id: &str, caller: Caller, library: &State<Library>) -> Result<Json<ModelMetadata>, ApiError> {
    let id = parse_id(id)?;
    let model = library.predictor(caller, id).await?;
    let input = TensorMetadata { name: INPUT, datatype: "FP64", shape: vec![-1, model.features.len() as i64] };
    let output = TensorMetadata { name: OUTPUT, datatype: "FP64", shape: vec![-1] };
    Ok(Json(ModelMetadata {
        name: id.to_string(),
        platform: "ridgeline",
        inputs: [input],
        outputs: [output],
        parameters: ModelParameters { columns: model.features.clone() },
    }))
}

/// Whether a model can be asked.
#[derive(Serialize, ToSchema)]
struct ModelReady {
    name: String,
    ready: bool,
}

/// A model can be asked
#[utoipa::path(
    tag = "inference",
    params(("id" = i32, Path, description = ids::MODEL, minimum = 1)),
    responses(
        (status = 200, description = "It can.", body = ModelReady),
        error::NotFound,
        error::NotTrained,
        error::Usual
    )
)]
#[get("/v2/models/<id>/ready")]
async fn v2_model_ready(id: &str, caller: Caller, library: &State<Library>) -> Result<Json<ModelReady>, ApiError> {
    let id = parse_id(id)?;
    library.predictor(caller, id).await?;
    Ok(Json(ModelReady { name: id.to_string(), ready: true }))
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

/// The JSON of a reply.
#[derive(Serialize, ToSchema)]
struct InferResponse {
    /// The request's, if it had one.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    model_name: String,
    outputs: [InferOutput; 1],
}

/// A tensor of a reply.
#[derive(Serialize, ToSchema)]
struct InferOutput {
    /// A number for each row, unless they come as bytes behind the JSON.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<f64>>,
    /// `FP64`.
    datatype: String,
    /// `prediction`.
    name: String,
    /// `binary_data_size` where there are bytes behind the JSON.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<HashMap<String, u64>>,
    /// The number of rows.
    shape: [u64; 1],
}

/// Predictions by the Open Inference Protocol
///
/// A body of `application/octet-stream` is the same JSON with the bytes of the tensors behind it.
#[utoipa::path(
    tag = "inference",
    params(
        ("id" = i32, Path, description = ids::MODEL, minimum = 1),
        ("Inference-Header-Content-Length" = Option<u64>, Header,
            description = "How many bytes of the body are JSON; all of them where it is not given.")
    ),
    request_body(content(
        (InferRequest = "application/json", example = json!({"inputs": [
            {"name": "input", "shape": [2, 2], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0]}
        ]})),
        (String = "application/octet-stream")
    )),
    responses(
        (status = 200, description = "A number for each row.", headers(
            ("Inference-Header-Content-Length" = u64, description = "How many bytes of a binary reply are JSON.")
        ), content(
            (InferResponse = "application/json"),
            (String = "application/octet-stream")
        )),
        error::NotFound,
        error::NotTrained,
        error::OfBody,
        error::Usual
    )
)]
#[post("/v2/models/<id>/infer", data = "<body>")]
async fn v2_infer(
    id: &str,
    uploader: Uploader,
    body: RequestBody<'_>,
    length: JsonLength,
    config: &State<Config>,
    library: &State<Library>,
    metrics: &State<Metrics>,
) -> Result<Inference, ApiError> {
    let id = parse_id(id)?;
    let (caller, body) = uploader.admit(body).await?;
    let bytes = body.read_bytes(config.predict_limit, config).await?;
    let metrics = metrics.inner().clone();
    let model = library.predictor(caller, id).await?;
    super::compute(bytes.len(), move || {
        let mut request = InferRequest::read(&bytes, length, id)?;
        let cells = request.take_cells(&model.features)?;
        let (n_bytes, request_id, as_binary) = (bytes.len() as u64, request.id.take(), request.wants_binary());
        // What is not needed any longer would be held beside the result and its text.
        drop((request, bytes));
        let result = evaluate(&model, &cells, |row| format!("inputs: row {}", row + 1))?;
        drop(cells);
        metrics.received(Purpose::Prediction, n_bytes, result.len());
        reply(id, request_id, result, as_binary)
    })
    .await
}

/// The JSON fields before, and the numbers in it or behind it.
fn reply(id: i32, request_id: Option<String>, result: Vec<f64>, as_binary: bool) -> Result<Inference, ApiError> {
    let shape = [result.len() as u64];
    let binary: Option<Vec<u8>> = as_binary.then(|| result.iter().flat_map(|value| value.to_le_bytes()).collect());
    let size = binary.as_ref().map(|bytes| HashMap::from([("binary_data_size".to_owned(), bytes.len() as u64)]));
    let data = (!as_binary).then_some(result);
    let (name, datatype) = (OUTPUT.to_owned(), "FP64".to_owned());
    let output = InferOutput { data, datatype, name, parameters: size, shape };
    let response = InferResponse { id: request_id, model_name: id.to_string(), outputs: [output] };
    let head = serde_json::to_string(&response).map_err(|error| ApiError::internal(error.into()))?;
    Ok(Inference { head, binary })
}

//! A model as ONNX: one `LinearRegressor` of the domain `ai.onnx.ml`.
//!
//! Its coefficients, its input and its output are 32-bit floats, because the operator has no others.
//!
//! The messages are those fields of `onnx.proto` that such a model has, under their numbers there.

use prost::Message;
use serde_json::json;

use super::Exported;
use crate::table::shown;

/// The version of the format, and the operator sets that every runtime of the last years knows.
const IR_VERSION: i64 = 8;
const OPSETS: [(&str, i64); 2] = [("", 15), ("ai.onnx.ml", 1)];
/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(int64, tag = "5")]
    model_version: i64,
    #[prost(string, tag = "6")]
    doc_string: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    s: Option<Vec<u8>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    floats: Vec<f32>,
    /// `AttributeProto.AttributeType`.
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
    #[prost(string, tag = "3")]
    doc_string: String,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

/// The bytes of the file: one input `input` of shape `(rows, n_features)`, the columns in the training CSV's order, which
/// the metadata tell; one output `prediction` of shape `(rows, 1)`.
///
/// # Errors
/// A sentence, when a coefficient is too large for a 32-bit float.
pub(super) fn write(exported: &Exported) -> Result<Vec<u8>, String> {
    let model = &exported.model;
    let names = model.features.iter().map(|name| format!("the coefficient of {}", shown(name)));
    let coefficients = names.zip(&model.coef).map(|(name, &value)| single(&name, value)).collect::<Result<_, _>>()?;
    let intercept = single("the intercept", model.intercept)?;
    let metadata = [
        ("columns", json!(model.features)),
        ("target", json!(exported.target)),
        ("name", json!(exported.name)),
        ("model_id", json!(exported.id)),
    ];
    let node = NodeProto {
        input: vec!["input".to_owned()],
        output: vec!["prediction".to_owned()],
        name: "ridge".to_owned(),
        op_type: "LinearRegressor".to_owned(),
        attribute: vec![
            floats("coefficients", coefficients),
            floats("intercepts", vec![intercept]),
            AttributeProto { name: "targets".to_owned(), i: Some(1), kind: 2, ..AttributeProto::default() },
            AttributeProto {
                name: "post_transform".to_owned(),
                s: Some(b"NONE".to_vec()),
                kind: 3,
                ..AttributeProto::default()
            },
        ],
        domain: "ai.onnx.ml".to_owned(),
    };
    let columns = "one column for each feature, in the order that the model's metadata give as a JSON list, `columns`";
    let graph = GraphProto {
        node: vec![node],
        name: "ridge".to_owned(),
        input: vec![tensor("input", columns, model.features.len())],
        output: vec![tensor("prediction", "the target's predictions", 1)],
    };
    let file = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "ridgeline".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        model_version: 1,
        doc_string: "A ridge regression. Coefficients, input and output are 32-bit floats.".to_owned(),
        graph: Some(graph),
        opset_import: OPSETS.map(|(domain, version)| OperatorSetIdProto { domain: domain.to_owned(), version }).into(),
        metadata_props: metadata
            .map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value: value.to_string() })
            .into(),
    };
    Ok(file.encode_to_vec())
}

fn single(name: &str, value: f64) -> Result<f32, String> {
    let single = value as f32;
    if single.is_finite() {
        return Ok(single);
    }
    Err(format!("format: {name} is {value:?}, which is too large for the 32-bit floats of ONNX's LinearRegressor"))
}

fn floats(name: &str, floats: Vec<f32>) -> AttributeProto {
    AttributeProto { name: name.to_owned(), floats, kind: 6, ..AttributeProto::default() }
}

/// A matrix of any number of rows.
fn tensor(name: &str, doc_string: &str, n_columns: usize) -> ValueInfoProto {
    let rows = Dimension { dim_param: Some("rows".to_owned()), ..Dimension::default() };
    let columns = Dimension { dim_value: Some(n_columns as i64), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: vec![rows, columns] });
    let kind = Some(TypeProto { tensor_type: Some(TensorType { elem_type: FLOAT, shape }) });
    ValueInfoProto { name: name.to_owned(), kind, doc_string: doc_string.to_owned() }
}

//! An inference request: its JSON, the bytes behind it, and the rows that they are.

use std::convert::Infallible;

use rocket::Request;
use rocket::request::{FromRequest, Outcome};
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::body::{from_json, wholes};
use super::super::error::ApiError;
use super::tensor::{DataType, Numbers};
use super::{INPUT, LENGTH, OUTPUT};
use crate::table::shown;

/// The length of the JSON at the beginning of a body with binary tensors, as its header says.
pub(super) struct Header(Option<String>);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Header {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Self(request.headers().get_one(LENGTH).map(str::to_owned)))
    }
}

/// Most extents of a tensor's shape: two at most make sense.
const MOST_EXTENTS: usize = 8;

/// The parameters that mean something here; all others are hints, and not even held.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "an object")]
struct Parameters {
    /// Of a request: whether the output is wanted as bytes.
    binary_data_output: Option<bool>,
    /// The same of one output.
    binary_data: Option<bool>,
    /// Of an input: how many bytes of it stand behind the JSON.
    binary_data_size: Option<u64>,
}

/// The JSON of a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct InferRequest {
    /// Comes back with the reply.
    pub(super) id: Option<String>,
    /// The model's number as in the path.
    model_name: Option<String>,
    #[serde(rename = "model_version")]
    _model_version: Option<String>,
    /// `binary_data_output` asks for outputs as bytes behind the JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: Parameters,
    /// One matrix of shape `[rows, features]`, or one column of shape `[rows]` for each feature by its name.
    inputs: Vec<Input>,
    /// `prediction`, or nothing.
    #[serde(default)]
    outputs: Vec<Output>,
}

/// A tensor that is sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Input {
    name: String,
    #[serde(deserialize_with = "wholes::<_, MOST_EXTENTS, _>")]
    #[schema(max_items = 8)]
    shape: Vec<usize>,
    datatype: DataType,
    /// `binary_data_size`, where the numbers are bytes behind the JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: Parameters,
    /// The numbers, flat or in lists in lists as the shape says.
    #[schema(value_type = Option<Vec<Value>>)]
    data: Option<Numbers>,
}

/// A tensor that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Output {
    name: String,
    /// `binary_data` asks for bytes behind the JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    parameters: Parameters,
}

impl InferRequest {
    /// Decodes a body, and puts the bytes behind its JSON into the inputs that they belong to.
    ///
    /// # Errors
    /// 400 when it is not what its header says, 422 when it is not a request for the model `id`.
    pub(super) fn read(body: &[u8], length: Header, id: i32) -> Result<Self, ApiError> {
        let end = length.0.map_or(Some(body.len()), |text| text.trim().parse().ok());
        let (head, mut binary) = end.and_then(|end| body.split_at_checked(end)).ok_or_else(|| {
            ApiError::malformed(format!("the header {LENGTH} must be the number of bytes of JSON in the body"))
        })?;
        let text = std::str::from_utf8(head).map_err(|error| {
            let byte = error.valid_up_to() + 1;
            ApiError::malformed(format!("the JSON of the body is not valid UTF-8: byte {byte}"))
        })?;
        let mut request: Self = from_json(text)?;
        for (index, input) in request.inputs.iter_mut().enumerate() {
            binary = input.take(index, binary)?;
        }
        if !binary.is_empty() {
            return Err(ApiError::invalid(format!("the body has {} bytes more than its inputs say", binary.len())));
        }
        if request.model_name.as_ref().is_some_and(|name| *name != id.to_string()) {
            return Err(ApiError::invalid(format!("model_name: is not the model {id} of the path")));
        }
        if let Some(output) = request.outputs.iter().find(|output| output.name != OUTPUT) {
            let name = shown(&output.name);
            return Err(ApiError::invalid(format!(
                "outputs: there is no output {name}; the model's output is {OUTPUT}"
            )));
        }
        Ok(request)
    }

    /// Takes the cells, row after row, in the order of `features`.
    ///
    /// # Errors
    /// 422 when the inputs are neither one matrix nor the model's columns.
    pub(super) fn take_cells(&mut self, features: &[String]) -> Result<Vec<f64>, ApiError> {
        if let [Input { shape, data: Some(data), .. }] = &mut self.inputs[..]
            && let [_rows, columns] = shape[..]
            && columns == features.len()
        {
            return Ok(std::mem::take(&mut data.values));
        }
        let mut columns: Vec<&[f64]> = vec![&[]; features.len()];
        let mut is_given = vec![false; features.len()];
        for (index, input) in self.inputs.iter().enumerate() {
            let Some(feature) = features.iter().position(|feature| *feature == input.name) else {
                let (n, name, shape) = (features.len(), shown(&input.name), &input.shape);
                let takes = format!(
                    "the model takes one input {INPUT:?} of shape [rows, {n}], or one of shape [rows] for each column by its name"
                );
                return Err(ApiError::invalid(match shape[..] {
                    [_, columns] if columns > 1 => format!("inputs[{index}].shape: is {shape:?}, but {takes}"),
                    _ => format!("inputs[{index}]: {name} is not a column of the model; {takes}"),
                }));
            };
            if std::mem::replace(&mut is_given[feature], true) {
                return Err(ApiError::invalid(format!("inputs[{index}]: {} is given twice", shown(&input.name))));
            }
            if !matches!(input.shape[..], [_] | [_, 1]) {
                return Err(ApiError::invalid(format!("inputs[{index}].shape: a column must be [rows] or [rows, 1]")));
            }
            columns[feature] = input.data.as_ref().map_or(&[], |data| &data.values);
        }
        if let Some(feature) = is_given.iter().position(|given| !given) {
            return Err(ApiError::invalid(format!("inputs: the column {} is missing", shown(&features[feature]))));
        }
        let n_rows = columns.first().map_or(0, |column| column.len());
        if let Some(feature) = columns.iter().position(|column| column.len() != n_rows) {
            let (name, first) = (shown(&features[feature]), shown(&features[0]));
            let rows = columns[feature].len();
            return Err(ApiError::invalid(format!("inputs: {name} has {rows} rows, but {first} has {n_rows}")));
        }
        Ok((0..n_rows).flat_map(|row| columns.iter().map(move |column| column[row])).collect())
    }

    /// Whether the output is wanted as bytes behind the JSON.
    pub(super) fn wants_binary(&self) -> bool {
        let by_output = self.outputs.first().and_then(|output| output.parameters.binary_data);
        by_output.or(self.parameters.binary_data_output).unwrap_or(false)
    }
}

impl Input {
    /// Takes this input's bytes off the beginning of `binary`, where it has any, checks it, and returns the rest.
    fn take<'b>(&mut self, index: usize, binary: &'b [u8]) -> Result<&'b [u8], ApiError> {
        let wrong = |sentence: String| ApiError::invalid(format!("inputs[{index}]{sentence}"));
        let count = self.shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
        let count = count.ok_or_else(|| wrong(".shape: is too large".to_owned()))?;
        let size = self.parameters.binary_data_size;
        let rest = match (&mut self.data, size) {
            (Some(_), Some(_)) => return Err(wrong(": has both data and binary_data_size".to_owned())),
            (None, None) => return Err(wrong(": has neither data nor binary_data_size".to_owned())),
            (Some(data), None) => {
                data.check(self.datatype, &self.shape, count)
                    .map_err(|sentence| wrong(format!(".data: {sentence}")))?;
                binary
            }
            (None, Some(size)) => {
                let expected = count.saturating_mul(self.datatype.size());
                if size != expected as u64 {
                    return Err(wrong(format!(".parameters.binary_data_size: must be {expected} for this shape")));
                }
                let Some((bytes, rest)) = binary.split_at_checked(expected) else {
                    return Err(wrong(": the body ends before the tensor's bytes".to_owned()));
                };
                self.data = Some(Numbers::from(self.datatype.decode(bytes)));
                rest
            }
        };
        let values = self.data.iter().flat_map(|data| &data.values);
        if let Some(position) = values.clone().position(|value| !value.is_finite()) {
            return Err(wrong(format!(": element {} is not a finite number", position + 1)));
        }
        Ok(rest)
    }
}

//! What a `POST /train` asks for: one decoder for the JSON body and for the query string.

use rocket::http::uri::Origin;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use utoipa::{IntoParams, ToSchema};

use super::super::body::{self, AtMost};
use super::super::error::ApiError;
use super::super::tags::{self, Tag};
use super::super::{idempotency, ids, query};
use crate::training::{Loss, Params};

/// Random folds where the client says nothing.
const DEFAULT_FOLDS: usize = 5;
/// Seeds that are drawn stay below this, so that every JSON reader can hold them exactly.
const LARGEST_DRAWN_SEED: u64 = (1 << 53) - 1;
/// Longest name of a model or a dataset, in characters.
const LONGEST_NAME: usize = 1000;
/// Most penalties in one call.
const MOST_PENALTIES: usize = 10_000;

/// The JSON body, or the query parameters of a `text/csv` body.
#[derive(Debug, Deserialize, Serialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[into_params(parameter_in = Query)]
pub(super) struct TrainRequest {
    /// The CSV. Exactly one of `data` and `dataset_id` must be given.
    #[schema(content_media_type = "text/csv")]
    #[param(ignore)]
    #[serde(skip_serializing_if = "idempotency::is_digested")]
    data: Option<String>,
    /// The number of a dataset that was posted before.
    #[schema(value_type = Option<i32>, minimum = 1)]
    #[param(value_type = Option<i32>, minimum = 1)]
    #[serde(default, deserialize_with = "body::whole")]
    dataset_id: Option<i64>,
    /// The column to predict. All columns without a role are features.
    #[param(required = false)]
    target: String,
    /// How many random folds, at most as many as rows; 5 without a fold column.
    #[schema(minimum = 2)]
    #[param(minimum = 2)]
    #[serde(default, deserialize_with = "body::whole")]
    n_folds: Option<usize>,
    /// Whether there is an intercept; it is never penalised.
    #[schema(default = true)]
    #[param(default = true)]
    fit_intercept: Option<bool>,
    /// The penalties to choose from, each 0 or more; an automatic grid where there are none.
    #[schema(value_type = Option<Vec<Penalty>>, min_items = 1, max_items = 10000)]
    #[param(value_type = Option<Vec<Penalty>>, min_items = 1, max_items = 10000, style = Form, explode = false)]
    l2_coef: Option<AtMost<f64, MOST_PENALTIES>>,
    /// What the folds are drawn from; drawn at random, and reported, where it is not given.
    #[serde(default, deserialize_with = "body::whole")]
    seed: Option<u64>,
    /// Whether the squared errors of the objective are averaged or summed up.
    #[schema(default = "mean")]
    #[param(inline)]
    loss: Option<Loss>,
    /// Whether to penalise the coefficients of columns scaled to unit standard deviation.
    #[schema(default = false)]
    #[param(default = false)]
    standardize: Option<bool>,
    /// A column with the rows' weights, each 0 or more.
    weight_column: Option<String>,
    /// A column whose distinct values are the folds, instead of `n_folds` and `seed`.
    fold_column: Option<String>,
    /// A name for the model.
    #[schema(max_length = 1000, pattern = r"^[^\u0000]*$")]
    #[param(max_length = 1000, pattern = r"^[^\u0000]*$")]
    name: Option<String>,
    /// Words to find the model by.
    #[schema(value_type = Option<Vec<Tag>>, max_items = 20)]
    #[param(value_type = Option<Vec<Tag>>, max_items = 20, style = Form, explode = false)]
    tags: Option<AtMost<String, { tags::MOST }>>,
}

/// A penalty as it is described.
#[derive(ToSchema)]
#[schema(minimum = 0)]
#[expect(dead_code, reason = "a penalty is a number")]
struct Penalty(f64);

/// A request with the defaults filled in; not checked against the rows.
pub(super) struct Wish {
    pub(super) params: Params,
    pub(super) name: Option<String>,
    pub(super) tags: Vec<String>,
}

impl TrainRequest {
    /// The request that a JSON body makes.
    pub(super) fn read(text: String) -> Result<Self, ApiError> {
        body::from_json(&text)
    }

    /// The parameters that a query string holds; they are the fields of the JSON body.
    pub(super) fn of_query(uri: &Origin<'_>) -> Result<Self, ApiError> {
        let query = query_parameters(uri)?;
        if query.contains_key("data") {
            return Err(ApiError::invalid("data: the CSV is the body, and cannot be a query parameter as well"));
        }
        serde_path_to_error::deserialize(Value::Object(query))
            .map_err(|error| body::json_error(&error.path().to_string(), error.inner()))
    }

    /// Takes out the CSV that a JSON body holds.
    pub(super) fn take_csv(&mut self) -> Option<String> {
        self.data.take()
    }

    /// The dataset that it names instead of a CSV.
    ///
    /// # Errors
    /// 422 unless there is exactly one of the two, 404 when there can be no such dataset.
    pub(super) fn dataset(&self, has_csv: bool) -> Result<Option<i32>, ApiError> {
        match (has_csv, self.dataset_id) {
            (true, None) => Ok(None),
            (false, Some(id)) => ids::within("dataset", id).map(Some),
            (false, None) => Err(ApiError::invalid(
                "missing field `data` or `dataset_id`: the CSV, or the number of a dataset that was posted before",
            )),
            (true, Some(_)) => {
                Err(ApiError::invalid("data and dataset_id: exactly one of them must be given, not both"))
            }
        }
    }

    /// Fills in the defaults.
    pub(super) fn complete(self) -> Result<Wish, ApiError> {
        if self.fold_column.is_some() && (self.n_folds.is_some() || self.seed.is_some()) {
            return Err(ApiError::invalid(
                "fold_column: the column is the folds, so n_folds and seed cannot be given too",
            ));
        }
        check_name(self.name.as_deref())?;
        let tags = self.tags.map(|AtMost(tags)| tags).unwrap_or_default();
        tags::check(&tags)?;
        let draws = self.fold_column.is_none();
        let params = Params {
            target: self.target,
            n_folds: draws.then_some(self.n_folds.unwrap_or(DEFAULT_FOLDS)),
            fit_intercept: self.fit_intercept.unwrap_or(true),
            l2_coef: self.l2_coef.map(|AtMost(penalties)| penalties),
            seed: draws.then(|| self.seed.unwrap_or_else(|| rand::random_range(0..=LARGEST_DRAWN_SEED))),
            loss: self.loss.unwrap_or(Loss::Mean),
            standardize: self.standardize.unwrap_or(false),
            weight_column: self.weight_column,
            fold_column: self.fold_column,
        };
        Ok(Wish { params, name: self.name, tags })
    }
}

/// Refuses a name that is too long, or that the database cannot hold.
pub(in crate::web) fn check_name(name: Option<&str>) -> Result<(), ApiError> {
    match name {
        Some(name) if name.chars().count() > LONGEST_NAME || name.contains('\0') => {
            Err(ApiError::invalid(format!("name: at most {LONGEST_NAME} characters, and no NUL character")))
        }
        _ => Ok(()),
    }
}

/// Refuses a query string beside a JSON body.
pub(super) fn no_query(uri: &Origin<'_>) -> Result<(), ApiError> {
    match uri.query() {
        Some(query) if !query.is_empty() => {
            Err(ApiError::invalid("query parameters go with a text/csv body; a JSON body holds them itself"))
        }
        _ => Ok(()),
    }
}

/// The query string as the JSON that it stands for, so that one decoder and its messages serve both.
fn query_parameters(uri: &Origin<'_>) -> Result<Map<String, Value>, ApiError> {
    let mut parameters = Map::new();
    for (name, value) in query::parameters(uri)? {
        let value = match name {
            "l2_coef" => value.split(',').map(|number| number_or_text(number.trim())).collect(),
            "tags" => value.split(',').map(|tag| Value::from(tag.trim())).collect(),
            "n_folds" | "seed" | "dataset_id" => {
                serde_json::from_str(value).unwrap_or_else(|_not_json| Value::from(value))
            }
            // Python writes True.
            "fit_intercept" | "standardize" if value.eq_ignore_ascii_case("true") => Value::Bool(true),
            "fit_intercept" | "standardize" if value.eq_ignore_ascii_case("false") => Value::Bool(false),
            _ => Value::from(value),
        };
        parameters.insert(name.to_owned(), value);
    }
    Ok(parameters)
}

/// A finite number, or else the text, for the decoder to refuse.
fn number_or_text(text: &str) -> Value {
    let number = text.parse().ok().and_then(Number::from_f64);
    number.map_or_else(|| Value::from(text), Value::Number)
}

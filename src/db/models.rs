//! Models: what was asked for, how far it is, and what came out. The queue's own statements are in [`crate::queue`].

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_json::Json;
use utoipa::ToSchema;

use super::schema::{self, models};
use super::{begins_like, datasets};
use crate::training::{Best, FittedModel, Metrics, Params, PenaltyScore};

/// A row of `models` as a client sees it.
#[derive(Debug, HasQuery)]
#[diesel(table_name = models)]
pub struct Model {
    /// Its number.
    pub id: i32,
    /// What it is trained on; `None` when that was deleted after the model had ended.
    pub dataset_id: Option<i32>,
    /// What the client called it.
    pub name: Option<String>,
    /// The words by which the client finds it again.
    pub tags: Json<Vec<String>>,
    /// What the client asked for, defaults filled in.
    pub params: Json<Params>,
    /// How far it is.
    pub status: Status,
    /// How many workers have taken it.
    pub attempt: i32,
    /// The share of the training that is done, 0 to 1.
    pub progress: f64,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When the current attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The coefficients, once trained.
    pub model: Option<Json<FittedModel>>,
    /// The score of each penalty, once trained.
    pub cv_results: Option<Json<Vec<PenaltyScore>>>,
    /// The penalty that won, once trained.
    pub best: Option<Json<Best>>,
    /// How well it fits, once trained.
    pub metrics: Option<Json<Metrics>>,
    /// What a careful user should know of the result.
    pub warnings: Json<Vec<String>>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The part of a row that a prediction needs.
#[derive(Debug, HasQuery)]
#[diesel(table_name = models)]
pub struct Predictor {
    /// How far it is.
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// The coefficients, once trained.
    pub model: Option<Json<FittedModel>>,
}

/// What a model is called, and by what it was asked for.
#[derive(Debug, HasQuery)]
#[diesel(table_name = models)]
pub struct Label {
    /// What the client called it.
    pub name: Option<String>,
    /// What the client asked for.
    pub params: Json<Params>,
}

/// The part of a row that changes while a model is trained.
#[derive(Debug, Clone, PartialEq, HasQuery)]
#[diesel(table_name = models)]
pub struct State {
    /// Its number.
    pub id: i32,
    /// How far it is.
    pub status: Status,
    /// How many workers have taken it.
    pub attempt: i32,
    /// The share of the training that is done, 0 to 1.
    pub progress: f64,
    /// Why it failed.
    pub error: Option<String>,
}

/// The states of a model; the migration draws the transitions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow, ToSchema,
)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[schema(rename_all = "lowercase")]
pub enum Status {
    /// Waiting for a worker.
    Queued,
    /// A worker holds its lease.
    Training,
    /// Done; the result never changes.
    Trained,
    /// It cannot be trained; `error` says why.
    Failed,
    /// Withdrawn by the client.
    Cancelled,
}

impl Status {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Training, Self::Trained, Self::Failed, Self::Cancelled];

    /// The state of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether nothing more will happen to a model in this state.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Trained | Self::Failed | Self::Cancelled)
    }

    /// The word for it in the database and in replies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Training => "training",
            Self::Trained => "trained",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg> for Status {
    fn to_sql<'b>(&'b self, out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>) -> diesel::serialize::Result {
        diesel::serialize::ToSql::<diesel::sql_types::Text, diesel::pg::Pg>::to_sql(self.as_str(), out)
    }
}

impl diesel::deserialize::FromSql<diesel::sql_types::Text, diesel::pg::Pg> for Status {
    fn from_sql(bytes: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
        let word = std::str::from_utf8(bytes.as_bytes())?;
        Self::from_word(word).ok_or_else(|| format!("unknown status {word:?}").into())
    }
}

/// What a list says of a model.
#[derive(Debug, HasQuery)]
#[diesel(table_name = models)]
pub struct Summary {
    /// Its number.
    pub id: i32,
    /// What it is trained on; `None` when that was deleted after the model had ended.
    pub dataset_id: Option<i32>,
    /// What the client called it.
    pub name: Option<String>,
    /// The words by which the client finds it again.
    pub tags: Json<Vec<String>>,
    /// How far it is.
    pub status: Status,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The penalty that won, once trained.
    pub best: Option<Json<Best>>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Which models a list shows.
#[derive(Debug, Default)]
pub struct Filter {
    /// Those of this key; `None`: those that were made while there were no keys.
    pub owner: Option<i32>,
    /// Those numbered below this.
    pub before: Option<i32>,
    /// Those in this state.
    pub status: Option<Status>,
    /// Those of this name.
    pub name: Option<String>,
    /// Those with all of these tags.
    pub tags: Vec<String>,
    /// Those that are trained on this dataset.
    pub dataset_id: Option<i32>,
}

/// The newest models that pass `filter`, `most` at most.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &mut PgConnection, filter: &Filter, most: i64) -> QueryResult<Vec<Summary>> {
    let mut query = Summary::query().order(models::id.desc()).limit(most).into_boxed();
    // Not the comparison of `owned_by`, which no index serves.
    query = match filter.owner {
        Some(owner) => query.filter(models::owner.eq(owner)),
        None => query.filter(models::owner.is_null()),
    };
    if let Some(before) = filter.before {
        query = query.filter(models::id.lt(before));
    }
    if let Some(status) = filter.status {
        query = query.filter(models::status.eq(status));
    }
    if let Some(name) = &filter.name {
        query = query.filter(models::name.eq(name)).filter(begins_like(name));
    }
    if !filter.tags.is_empty() {
        // The second condition is the index's own.
        let has_tags = models::tags.contains(Json(&filter.tags)).and(sql::<Bool>("tags <> '[]'"));
        query = query.filter(has_tags);
    }
    if let Some(dataset_id) = filter.dataset_id {
        query = query.filter(models::dataset_id.eq(dataset_id));
    }
    query.load(conn)
}

/// The model `id`, if it belongs to `owner`.
#[diesel::dsl::auto_type(no_type_alias)]
pub(crate) fn owned_by(owner: Option<i32>, id: i32) -> _ {
    models::id.eq(id).and(models::owner.is_not_distinct_from(owner))
}

/// Deletes a model of `owner`, and the dataset that came with it if no other model uses it. A worker that trains it drops
/// its result. Call it in a transaction.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn delete(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<()> {
    let model = models::table.filter(owned_by(owner, id));
    let dataset_id: Option<i32> = model.select(models::dataset_id).get_result(conn)?;
    // None as well when the dataset was deleted a moment ago.
    let is_standalone = dataset_id.map(|id| datasets::lock(conn, owner, id)).transpose().optional()?.flatten();
    if diesel::delete(model).execute(conn)? == 0 {
        return Err(diesel::result::Error::NotFound);
    }
    if let (Some(dataset_id), Some(false)) = (dataset_id, is_standalone) {
        let used = diesel::dsl::exists(models::table.filter(models::dataset_id.eq(dataset_id)));
        let unused = schema::datasets::table.find(dataset_id).filter(diesel::dsl::not(used));
        diesel::delete(unused).execute(conn)?;
    }
    Ok(())
}

/// Finds a model of `owner` by its id.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn find(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<Model> {
    Model::query().filter(owned_by(owner, id)).first(conn)
}

/// Finds what a prediction needs of a model of `owner`.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn find_predictor(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<Predictor> {
    Predictor::query().filter(owned_by(owner, id)).first(conn)
}

/// Finds what a model of `owner` is called.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn find_label(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<Label> {
    Label::query().filter(owned_by(owner, id)).first(conn)
}

/// Finds the state of a model of `owner`.
///
/// # Errors
/// [`diesel::result::Error::NotFound`] when there is none.
pub fn find_state(conn: &mut PgConnection, owner: Option<i32>, id: i32) -> QueryResult<State> {
    State::query().filter(owned_by(owner, id)).first(conn)
}

/// The states of those models `ids` that there are, whosever they are.
///
/// # Errors
/// Those of the database.
pub fn states(conn: &mut PgConnection, ids: &[i32]) -> QueryResult<Vec<State>> {
    match ids {
        // A small table would be read as a whole in search of several.
        &[id] => State::query().filter(models::id.eq(id)).load(conn),
        ids => State::query().filter(models::id.eq_any(ids)).load(conn),
    }
}

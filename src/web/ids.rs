//! The numbers of models and datasets in paths and bodies.

use super::error::ApiError;
use crate::db;

/// What the description of the API says of the number of a model.
pub(super) const MODEL: &str = "The model's number.";
/// The same of a dataset.
pub(super) const DATASET: &str = "The dataset's number.";

/// The number of a `noun` from a path.
///
/// # Errors
/// 404: what cannot be numbered like this does not exist.
pub(super) fn parse(noun: &str, id: &str) -> Result<i32, ApiError> {
    number(id).ok_or_else(|| {
        let id: String = id.chars().take(40).collect();
        ApiError::not_found(format!("there is no {noun} {id:?}: a {noun}'s id is a positive integer"))
    })
}

/// The number that `text` writes, at least 1.
pub(super) fn number(text: &str) -> Option<i32> {
    // In its one spelling: a sign, a blank or a zero in front would make a second name of the same thing.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    is_plain.then(|| text.parse().ok()).flatten()
}

/// The number of a `noun` from a body.
///
/// # Errors
/// 404 when it is beyond all numbers that are given.
pub(super) fn within(noun: &str, id: i64) -> Result<i32, ApiError> {
    i32::try_from(id).map_err(|_beyond| absent(noun, id))
}

/// What a failed look-up of the `noun` `id` means.
pub(super) fn unless_absent(error: db::Error, noun: &str, id: i32) -> ApiError {
    match error {
        db::Error::Query(diesel::result::Error::NotFound) => absent(noun, id.into()),
        error => error.into(),
    }
}

fn absent(noun: &str, id: i64) -> ApiError {
    ApiError::not_found(format!("there is no {noun} {id}"))
}

//! Tags: free words by which clients find their models again.

use utoipa::ToSchema;

use super::error::ApiError;
use crate::table::shown;

/// Most tags of a model. A CHECK of the table says the same.
pub(super) const MOST: usize = 20;
/// Longest tag, in characters.
const LONGEST: usize = 100;

/// A tag as it is described.
#[derive(ToSchema)]
#[schema(
    min_length = 1,
    max_length = 100,
    pattern = r"^[^\s,\x00-\x1f\x7f-\x9f]([^,\x00-\x1f\x7f-\x9f]*[^\s,\x00-\x1f\x7f-\x9f])?$"
)]
#[expect(dead_code, reason = "a tag is a string")]
pub(super) struct Tag(String);

/// Refuses tags that are too long, and those that could not be written in a query string or told apart by eye.
pub(super) fn check(tags: &[String]) -> Result<(), ApiError> {
    for (index, tag) in tags.iter().enumerate() {
        if !is_decent(tag) {
            return Err(ApiError::invalid(format!("tags[{index}]: expected {EXPECTED}, not {}", shown(tag))));
        }
        if tags[..index].contains(tag) {
            return Err(ApiError::invalid(format!("tags[{index}]: {} is given twice", shown(tag))));
        }
    }
    Ok(())
}

/// What a tag is.
pub(super) const EXPECTED: &str = "1 to 100 characters without commas, control characters, or blanks at either end";

/// Whether a text can be a tag.
pub(super) fn is_decent(tag: &str) -> bool {
    let is_plain = |character: char| !character.is_control() && character != ',';
    (1..=LONGEST).contains(&tag.chars().count()) && tag.chars().all(is_plain) && tag.trim() == tag
}

//! Lists come in pages, from the newest to the oldest.

use std::fmt::Display;

use rocket::http::uri::Origin;
use utoipa::IntoParams;

use super::error::ApiError;
use super::{ids, query};
use crate::table::shown;

/// Entries on a page where the client does not say, and at most.
const SIZE: (i64, i64) = (20, 1000);

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// So many entries at most.
    #[param(required = false, minimum = 1, maximum = 1000, default = 20)]
    pub(super) limit: i64,
    /// Those numbered below this: the `next` of the page before.
    #[param(rename = "after", minimum = 1)]
    pub(super) before: Option<i32>,
}

impl Page {
    /// Reads the query string of a list: `limit` and `after` here, every other parameter by `take`, which answers `false` to
    /// those that it does not know; `known` names those that it does.
    ///
    /// # Errors
    /// 422 that names the parameter.
    pub(super) fn read(
        uri: &Origin<'_>,
        known: &str,
        mut take: impl FnMut(&str, &str) -> Result<bool, ApiError>,
    ) -> Result<Self, ApiError> {
        let mut page = Self { limit: SIZE.0, before: None };
        for (name, value) in query::parameters(uri)? {
            match name {
                "limit" => {
                    let in_range = ids::number(value).map(i64::from).filter(|limit| (1..=SIZE.1).contains(limit));
                    page.limit =
                        in_range.ok_or_else(|| wrong(name, value, format!("a whole number from 1 to {}", SIZE.1)))?;
                }
                "after" => {
                    let before = ids::number(value).ok_or_else(|| wrong(name, value, "the next of a page before"))?;
                    page.before = Some(before);
                }
                _ if take(name, value)? => {}
                _ => {
                    return Err(ApiError::invalid(format!(
                        "unknown parameter {}; known are limit, after, {known}",
                        shown(name)
                    )));
                }
            }
        }
        Ok(page)
    }

    /// Cuts `found`, of which one more than asked for was looked for, and says where the next page begins, if there is one.
    pub(super) fn cut<T>(&self, found: &mut Vec<T>, id: impl Fn(&T) -> i32) -> Option<i32> {
        let has_more = found.len() as i64 > self.limit;
        found.truncate(self.limit as usize);
        found.last().filter(|_| has_more).map(id)
    }
}

/// 422: the parameter of a list is not what it should be.
pub(super) fn wrong(name: &str, value: &str, expected: impl Display) -> ApiError {
    ApiError::invalid(format!("{name}: expected {expected}, not {}", shown(value)))
}

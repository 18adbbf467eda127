//! Query strings: the one walk through them, with what is wrong in any of them.

use rocket::http::uri::Origin;

use super::error::ApiError;
use crate::table::shown;

/// The parameters of a query string, decoded, in their order.
///
/// # Errors
/// 422 when one is not UTF-8, or given twice.
pub(super) fn parameters<'a>(uri: &'a Origin<'_>) -> Result<Vec<(&'a str, &'a str)>, ApiError> {
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    for (name, value) in uri.query().into_iter().flat_map(|query| query.segments()) {
        if value.contains(char::REPLACEMENT_CHARACTER) {
            return Err(ApiError::invalid(format!("{}: the query string is not valid UTF-8", shown(name))));
        }
        if parameters.iter().any(|(given, _)| *given == name) {
            return Err(ApiError::invalid(format!("{}: given twice in the query string", shown(name))));
        }
        parameters.push((name, value));
    }
    Ok(parameters)
}

//! Query strings: the one walk through them, with what is wrong in any of them.

use rocket::data::{Data, FromData};
use rocket::http::uri::Origin;
use rocket::outcome::Outcome;
use rocket::route::{self, Handler, Route};
use rocket::{Request, async_trait};

use super::body::RequestBody;
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

/// The same where only those called `known` may be given.
///
/// # Errors
/// 422 for any other as well.
pub(super) fn known_parameters<'a>(uri: &'a Origin<'_>, known: &[&str]) -> Result<Vec<(&'a str, &'a str)>, ApiError> {
    let parameters = parameters(uri)?;
    match parameters.iter().find(|(name, _)| !known.contains(name)) {
        None => Ok(parameters),
        Some((name, _)) if known.is_empty() => Err(ApiError::invalid(format!(
            "unknown parameter {}: the call takes none in its query string",
            shown(name)
        ))),
        Some((name, _)) => {
            let (name, is) = (shown(name), if known.len() == 1 { "is" } else { "are" });
            Err(ApiError::invalid(format!("unknown parameter {name}; known {is} {}", known.join(", "))))
        }
    }
}

/// `routes` that refuse parameters other than those called `known`: a misspelt one would silently mean nothing. For calls that
/// do not read the whole query string themselves.
pub(super) fn knowing(known: &'static [&'static str], routes: Vec<Route>) -> Vec<Route> {
    let knowing = |mut route: Route| {
        route.handler = Box::new(Knowing { known, handler: route.handler });
        route
    };
    routes.into_iter().map(knowing).collect()
}

/// A handler for whatever passes.
#[derive(Clone)]
struct Knowing {
    known: &'static [&'static str],
    handler: Box<dyn Handler>,
}

#[async_trait]
impl Handler for Knowing {
    async fn handle<'r>(&self, request: &'r Request<'_>, data: Data<'r>) -> route::Outcome<'r> {
        let Err(error) = known_parameters(request.uri(), self.known) else {
            return self.handler.handle(request, data).await;
        };
        // A client that is still sending its body would not see the reply.
        let error = match RequestBody::from_data(request, data).await {
            Outcome::Success(body) => body.refuse(error).await,
            Outcome::Error(_) | Outcome::Forward(_) => error,
        };
        route::Outcome::from(request, error)
    }
}

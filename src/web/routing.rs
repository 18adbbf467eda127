//! What Rocket's router lacks: 405 instead of 404 where a path has other methods than the one that was asked for; and what it
//! has too much: another method by a field of a form, and more than one way to write a path.

use std::collections::BTreeSet;
use std::fmt;

use rocket::fairing::{Fairing, Info, Kind};
use rocket::form::Form;
use rocket::http::Method;
use rocket::{Data, Request};

use super::error::{self, ApiError};

/// The methods that a request's path takes.
pub(super) struct AllowedMethods(BTreeSet<&'static str>);

impl AllowedMethods {
    /// The methods of all routes that match the path of `request`. All our routes consist of fixed and single segments.
    pub(super) fn of(request: &Request<'_>) -> Self {
        let path: Vec<&str> = request.uri().path().raw_segments().map(|segment| segment.as_str()).collect();
        let routes = request.rocket().routes().filter(|route| matches(route.uri.path(), &path));
        let mut methods: BTreeSet<&'static str> = routes.map(|route| route.method.as_str()).collect();
        if methods.contains(Method::Get.as_str()) {
            // Rocket answers HEAD wherever there is a GET.
            methods.insert(Method::Head.as_str());
        }
        Self(methods)
    }

    /// Whether the path has any.
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the path has methods, but not the one of `request`.
    pub(super) fn lack(&self, request: &Request<'_>) -> bool {
        self.any() && !self.0.contains(request.method().as_str())
    }
}

impl fmt::Display for AllowedMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().copied().collect::<Vec<_>>().join(", "))
    }
}

fn matches(template: &str, path: &[&str]) -> bool {
    let template: Vec<&str> = template.split('/').filter(|segment| !segment.is_empty()).collect();
    template.len() == path.len()
        && template
            .iter()
            .zip(path)
            .all(|(part, segment)| if part.starts_with('<') { !segment.is_empty() } else { part == segment })
}

/// Refuses what Rocket reads in a way that a proxy before it may not: a request for two hosts, and a path with an empty
/// segment, such as `//models`, which Rocket takes for `/models`. A guard of hosts or paths must not be got around.
pub(super) struct Unambiguous;

#[rocket::async_trait]
impl Fairing for Unambiguous {
    fn info(&self) -> Info {
        Info { name: "unambiguous requests", kind: Kind::Request }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        let path = request.uri().path();
        let refusal = if request.headers().get("Host").nth(1).is_some() {
            ApiError::ambiguous("the request names more than one host")
        } else if path.as_str().contains("//") {
            ApiError::nothing_at(path.as_str())
        } else {
            return;
        };
        error::keep(request, refusal);
        // No route takes this method, and the catcher finds what was kept.
        request.set_method(Method::Connect);
    }
}

/// Takes back what Rocket does to a posted form whose first field is `_method`: it takes the field for the method. No call
/// takes forms, and any page in a browser may post one, so that a `DELETE` could be sent by a stranger.
pub(super) struct OneMethod;

#[rocket::async_trait]
impl Fairing for OneMethod {
    fn info(&self) -> Info {
        Info { name: "one method", kind: Kind::Request }
    }

    async fn on_request(&self, request: &mut Request<'_>, data: &mut Data<'_>) {
        let is_form = request.content_type().is_some_and(|content_type| content_type.is_form());
        if is_form && request.method() != Method::Post {
            let start = String::from_utf8_lossy(data.peek(LONGEST_FIELD).await);
            if Form::values(&start).next().is_some_and(|field| field.name == "_method") {
                request.set_method(Method::Post);
            }
        }
    }
}

/// As much of a form as Rocket looks at.
const LONGEST_FIELD: usize = "_method=delete".len();

//! What Rocket's router lacks: 405 instead of 404 where a path has other methods than the one that was asked for.

use std::collections::BTreeSet;
use std::fmt;

use rocket::Request;
use rocket::http::Method;

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

    /// Whether the path has methods, but not the one of `request`.
    pub(super) fn lack(&self, request: &Request<'_>) -> bool {
        !self.0.is_empty() && !self.0.contains(request.method().as_str())
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

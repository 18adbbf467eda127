//! Headers of every reply that tell browsers and caches what not to do with it.
//!
//! A handler that sets one of them has its own say: a page of HTML needs another Content-Security-Policy.

use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::Header;
use rocket::shield::{Hsts, Shield};
use rocket::{Request, Response};

/// The replies are data of one client, for nobody to keep, to guess the type of, to run or to frame.
const HEADERS: [(&str, &str); 6] = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
];

/// Sets the headers that are not set yet.
pub(super) fn protect(response: &mut Response<'_>) {
    for (name, value) in HEADERS {
        if !response.headers().contains(name) {
            response.set_header(Header::new(name, value));
        }
    }
}

/// Rocket's own share of the headers: none, except that over TLS browsers are told to take no plain HTTP for a year.
pub(super) fn shield(over_tls: bool) -> Shield {
    if over_tls { Shield::new().enable(Hsts::default()) } else { Shield::new() }
}

/// Sets the others on every reply to a request that Rocket could read.
pub(super) struct SecurityHeaders;

#[rocket::async_trait]
impl Fairing for SecurityHeaders {
    fn info(&self) -> Info {
        Info { name: "security headers", kind: Kind::Response }
    }

    async fn on_response<'r>(&self, _: &'r Request<'_>, response: &mut Response<'r>) {
        protect(response);
    }
}

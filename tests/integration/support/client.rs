//! Requests over HTTP, and replies that are checked for what holds of all of them.

use std::time::Duration;

use serde_json::Value;
use ureq::http::{HeaderMap, Request};

/// A reply of the service.
#[must_use]
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// The sentence of an error, after a look at the shape of its body.
    #[track_caller]
    pub(crate) fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        let code = body["code"].as_str().unwrap();
        assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
        body["error"].as_str().unwrap().to_owned()
    }
}

/// Sends a request; every reply must carry an id.
#[track_caller]
pub(crate) fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    exchange(method, url, headers, body).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// The same where there may be no reply.
pub(crate) fn exchange(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(60)));
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let agent: ureq::Agent = config.build().into();
    let mut response = if body.is_empty() && ["GET", "HEAD", "DELETE", "OPTIONS"].contains(&method) {
        agent.run(request.body(())?)?
    } else {
        agent.run(request.body(body)?)?
    };
    let reply = Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().with_config().limit(1 << 30).read_to_string()?,
    };
    assert!(!reply.header("x-request-id").is_empty(), "{reply:?}");
    Ok(reply)
}

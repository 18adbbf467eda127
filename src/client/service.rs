//! The service as the client sees it: calls, and errors in the service's own words.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use indicatif::ProgressBar;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::{HeaderValue, Request, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector};
use ureq::{Agent, Body, SendBody};

use super::duplex::DuplexConnector;
use super::options::{Key, Options};
use super::source::Source;
use super::text::clean;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the service may say nothing, or take nothing: it answers within a minute what it is asked to wait for, and reads
/// and stores the largest bodies in less.
const SILENCE: Duration = Duration::from_secs(300);
/// The pause before a call is repeated where the service does not say how long, and the longest that it can ask for.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A call: what is asked of the service.
pub(super) struct Call<'a> {
    method: &'static str,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    /// Whether it does no harm to ask again when it is not known what came of it.
    is_harmless: bool,
    body: Option<(&'a mut Source, &'a ProgressBar)>,
}

impl<'a> Call<'a> {
    /// A call that only reads.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { is_harmless: true, ..Self::new("GET", path) }
    }

    /// A call that does something, without a body.
    pub(super) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: vec![], headers: vec![], is_harmless: false, body: None }
    }

    /// A call that sends a CSV; `bar` shows how far it is.
    pub(super) fn send(path: impl Into<String>, source: &'a mut Source, bar: &'a ProgressBar) -> Self {
        Self { body: Some((source, bar)), ..Self::new("POST", path) }
    }

    /// One that changes nothing, so that it may be repeated whatever came of it.
    pub(super) fn harmless(self) -> Self {
        Self { is_harmless: true, ..self }
    }

    /// One that the service recognises when it is repeated: it has the effect of one.
    pub(super) fn once(self) -> Self {
        let key = format!("\"{:032x}\"", rand::random::<u128>());
        self.header("Idempotency-Key", key).harmless()
    }

    /// With the parameters of a query string behind those it has.
    pub(super) fn query(mut self, query: Vec<(&'static str, String)>) -> Self {
        self.query.extend(query);
        self
    }

    /// With one more header.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A running service.
pub(super) struct Service {
    agent: Agent,
    url: String,
    authorization: Option<HeaderValue>,
    patience: Duration,
    is_quiet: bool,
}

impl Service {
    /// The service that the options name.
    ///
    /// # Errors
    /// When the key or the certificates cannot be used.
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let roots = match &options.cacert {
            Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
            None => RootCerts::PlatformVerifier,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .user_agent(concat!("ridgeline/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots).build());
        // The default one with connections that read while they send.
        let connector =
            ().chain(ConnectProxyConnector::default()).chain(DuplexConnector).chain(RustlsConnector::default());
        Ok(Self {
            agent: Agent::with_parts(config.build(), connector, DefaultResolver::default()),
            url: options.server.clone(),
            authorization: options.key.as_ref().and_then(Key::expose).map(bearer).transpose()?,
            patience: Duration::from_secs(options.patience),
            is_quiet: options.quiet,
        })
    }

    /// How long to keep trying.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Makes a call, again and again while the service is busy, and returns the reply if it is a success.
    ///
    /// # Errors
    /// One sentence: the service's own if it refuses.
    pub(super) fn call(&self, mut call: Call<'_>) -> anyhow::Result<Response<Body>> {
        let start = Instant::now();
        let mut n_attempts = 0;
        loop {
            let Attempt { outcome, is_sent } = self.attempt(&mut call)?;
            n_attempts += 1;
            let (why, pause) = match &outcome {
                Ok(reply) if reply.status() == StatusCode::SERVICE_UNAVAILABLE => ("is busy", retry_after(reply)),
                // A connection that ends in the midst of a body may be the service's answer to its size: once is enough.
                Err(error) if was_cut_off(error) && !is_sent && n_attempts > 1 => {
                    bail!("the service at {} has ended the connection before it had all: is it too large?", self.url)
                }
                // A service that was never there is not waited for; one that went away during a call is.
                Err(error) if call.is_harmless && (n_attempts > 1 || was_cut_off(error)) => ("is away", PAUSES.0),
                _ => return self.success(outcome),
            };
            let is_in_time = start.elapsed() + pause <= self.patience;
            if !is_in_time || !call.body.as_mut().map_or(Ok(true), |(source, _)| source.rewind())? {
                return self.success(outcome);
            }
            if n_attempts == 1 && !self.is_quiet {
                let most = self.patience.as_secs();
                // If not even this can be said, it is tried all the same.
                let _unsaid = writeln!(io::stderr(), "the service {why}, tries again for up to {most} s");
            }
            thread::sleep(pause);
        }
    }

    /// Makes a call and reads the JSON of its reply.
    ///
    /// # Errors
    /// Those of [`Self::call`]; when the reply is not JSON.
    pub(super) fn json(&self, call: Call<'_>) -> anyhow::Result<Document> {
        Document::read(self.call(call)?)
    }

    /// One attempt.
    ///
    /// # Errors
    /// When the body's source cannot be read.
    fn attempt(&self, call: &mut Call<'_>) -> anyhow::Result<Attempt> {
        let separator = |index| if index == 0 { '?' } else { '&' };
        let parameters = call.query.iter().enumerate().map(|(index, (name, value))| {
            format!("{}{name}={}", separator(index), utf8_percent_encode(value, NON_ALPHANUMERIC))
        });
        let url = format!("{}{}{}", self.url, call.path, parameters.collect::<String>());
        let mut request = Request::builder().method(call.method).uri(url);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let Some((source, bar)) = &mut call.body else {
            let outcome = match call.method {
                "POST" => self.agent.run(request.body(&[] as &[u8])?),
                _ => self.agent.run(request.body(())?),
            };
            return Ok(Attempt { outcome, is_sent: true });
        };
        request = request.header("Content-Type", "text/csv");
        if source.is_gzip {
            request = request.header("Content-Encoding", "gzip");
        }
        bar.set_position(0);
        if let Some(length) = source.length() {
            bar.set_length(length);
            request = request.header("Content-Length", length);
        }
        let mut reader = source.reader(bar);
        let outcome = self.agent.run(request.body(SendBody::from_reader(&mut reader))?);
        reader.check()?;
        Ok(Attempt { outcome, is_sent: reader.is_over() })
    }

    /// The reply if it is a success, else what the service says.
    fn success(&self, outcome: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        let url = &self.url;
        let mut reply =
            outcome.map_err(|error| Away(format!("the service at {url} cannot be reached: {}", said(error))))?;
        let status = reply.status();
        if status.is_success() {
            return Ok(reply);
        }
        if let Some(target) = reply.headers().get("Location").filter(|_| status.is_redirection()) {
            bail!("{url} redirects to {}: that may be the address to use as --server", target.to_str().unwrap_or("?"));
        }
        let text = reply.body_mut().read_to_string().unwrap_or_default();
        match serde_json::from_str::<Value>(&text).ok().as_ref().and_then(|body| body["error"].as_str()) {
            Some(error) => bail!("{}", clean(error)),
            // A proxy's words for a service that is away.
            None if matches!(status.as_u16(), 502..=504) => bail!(Away(format!("{url} answered {status}"))),
            None => bail!("{url} answered {status}, and not as this service does"),
        }
    }
}

/// What has come of a call.
struct Attempt {
    outcome: Result<Response<Body>, ureq::Error>,
    /// Whether all of the body was on its way.
    is_sent: bool,
}

/// The service is not there, which may pass.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Away(String);

/// The JSON of a reply.
pub(super) struct Document {
    /// As it came: with all digits, in the service's order.
    pub(super) text: String,
    pub(super) value: Value,
}

impl Document {
    /// Reads a reply, however large.
    ///
    /// # Errors
    /// When it breaks off, or is not JSON.
    pub(super) fn read(reply: Response<Body>) -> anyhow::Result<Self> {
        let mut text = String::new();
        reply.into_body().into_reader().read_to_string(&mut text).context("the reply broke off")?;
        let value = serde_json::from_str(&text);
        let value = value.context("the reply is not JSON: something else than Ridgeline has answered")?;
        Ok(Self { text, value })
    }
}

/// How long the service asks to be left alone.
fn retry_after(reply: &Response<Body>) -> Duration {
    let header = reply.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    header.map_or(PAUSES.0, Duration::from_secs).clamp(PAUSES.0, PAUSES.1)
}

/// Whether the connection was there and ended before the reply had come.
fn was_cut_off(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error, ureq::Error::Io(error)
        if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// An error of the transport in words.
fn said(error: ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "it does not answer".to_owned(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        error => error.to_string(),
    }
}

/// The header that carries an API key.
fn bearer(key: &str) -> anyhow::Result<HeaderValue> {
    let header = HeaderValue::from_str(&format!("Bearer {key}"));
    // The error must not quote it.
    let mut header = header.map_err(|_refused| anyhow!("the API key holds characters that no key has"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The certificates of a PEM file.
fn certificates(path: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let pem = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let items = parse_pem(&pem).collect::<Result<Vec<_>, _>>();
    let items = items.with_context(|| format!("{} is not a PEM file", path.display()))?;
    let certificates: Vec<_> = items
        .into_iter()
        .filter_map(|item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None })
        .collect();
    ensure!(!certificates.is_empty(), "{} holds no certificate", path.display());
    Ok(certificates)
}

//! `GET /metrics`: what the service does, in figures for Prometheus.
//!
//! Two kinds of figures come together here. Requests, what was taken in and the use of the pool and of the room for uploads are this process's own. The
//! jobs are the database's, and so the same whichever process is asked: no worker needs a port of its own.

mod jobs;

use std::sync::Arc;
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::ContentType;
use rocket::{Request, Response, Route, State, get, routes};
use utoipa::OpenApi;

use super::access_log::Arrival;
use super::auth::Observer;
use super::body::Uploads;
use super::error::{self, ApiError};
use super::query;
use super::waiting::HeldBack;
use crate::db::{Pool, job_statistics};

/// Longest that a scrape waits for the database: Prometheus gives up after ten seconds, and the process's own figures matter
/// most when the database is away.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);
/// Upper bounds of the latencies that are told apart, in seconds.
const LATENCIES: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// The route of requests for which there is none: the paths that clients try are without number.
const NO_ROUTE: &str = "none";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    query::knowing(&[], routes![metrics])
}

/// The same as they are described.
#[derive(OpenApi)]
#[openapi(paths(metrics))]
pub(super) struct Calls;

/// What rows were sent for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// To be trained on.
    Training,
    /// To be predicted from.
    Prediction,
}

/// The figures of this process. Cloning shares them.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latencies: HistogramVec,
    received_bytes: IntCounterVec,
    received_rows: IntCounterVec,
    pool_connections: IntGaugeVec,
    upload_bytes: IntGaugeVec,
    database_up: IntGauge,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// When two figures have the same name, or one has a bad one.
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("ridgeline_http_requests_total", "Requests that were answered."),
            &["method", "route", "status"],
        )?;
        let latencies = HistogramVec::new(
            HistogramOpts::new(
                "ridgeline_http_request_duration_seconds",
                "From a request's head to its reply's, without what a client prefers to wait.",
            )
            .buckets(LATENCIES.to_vec()),
            &["method", "route"],
        )?;
        let received_bytes = IntCounterVec::new(
            Opts::new("ridgeline_received_bytes_total", "Bytes of the bodies whose rows were taken."),
            &["purpose"],
        )?;
        let received_rows =
            IntCounterVec::new(Opts::new("ridgeline_received_rows_total", "Rows that were taken."), &["purpose"])?;
        let pool_connections = IntGaugeVec::new(
            Opts::new(
                "ridgeline_pool_connections",
                "Database connections of the API: held, in use by requests, and the most there may be.",
            ),
            &["state"],
        )?;
        let upload_bytes = IntGaugeVec::new(
            Opts::new(
                "ridgeline_upload_bytes",
                "What large bodies hold together: taken at the moment, and the most they may take.",
            ),
            &["state"],
        )?;
        let database_up =
            IntGauge::new("ridgeline_database_up", "Whether the database answered; without it no jobs are shown.")?;
        let build =
            IntGaugeVec::new(Opts::new("ridgeline_build_info", "Always 1; the label has the news."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // Those that are known stand there from the start, at zero.
        for purpose in [Purpose::Training, Purpose::Prediction] {
            received_bytes.with_label_values(&[purpose.as_str()]);
            received_rows.with_label_values(&[purpose.as_str()]);
        }
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(latencies.clone()))?;
        registry.register(Box::new(received_bytes.clone()))?;
        registry.register(Box::new(received_rows.clone()))?;
        registry.register(Box::new(pool_connections.clone()))?;
        registry.register(Box::new(upload_bytes.clone()))?;
        registry.register(Box::new(database_up.clone()))?;
        registry.register(Box::new(build))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            registry,
            requests,
            latencies,
            received_bytes,
            received_rows,
            pool_connections,
            upload_bytes,
            database_up,
        })
    }

    /// Counts rows that a request brought, and the size of its body.
    pub(super) fn received(&self, purpose: Purpose, bytes: u64, rows: usize) {
        self.received_bytes.with_label_values(&[purpose.as_str()]).inc_by(bytes);
        self.received_rows.with_label_values(&[purpose.as_str()]).inc_by(rows as u64);
    }

    /// The figures at this moment, with those of the database where it answered.
    fn gather(&self, pool: &Pool, uploads: &Uploads, jobs: Option<Vec<MetricFamily>>) -> Vec<MetricFamily> {
        let (held, most) = uploads.usage();
        for (state, bytes) in [("held", held), ("max", most)] {
            self.upload_bytes.with_label_values(&[state]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let usage = pool.usage();
        for (state, connections) in [("open", usage.open), ("in_use", usage.in_use), ("max", usage.most)] {
            self.pool_connections.with_label_values(&[state]).set(connections as i64);
        }
        self.database_up.set(i64::from(jobs.is_some()));
        let mut families = self.registry.gather();
        families.extend(jobs.into_iter().flatten());
        families
    }
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Prediction => "prediction",
        }
    }
}

/// Figures for Prometheus
///
/// A service that listens on a loopback address asks for no key here.
#[utoipa::path(
    tag = "service",
    security((), ("key" = [])),
    responses(
        (status = 200, description = "Its text format.", body = String, content_type = "text/plain",
            example = "ridgeline_jobs{status=\"queued\"} 0\n"),
        error::Usual
    )
)]
#[get("/metrics")]
async fn metrics(
    _observer: Observer,
    metrics: &State<Metrics>,
    pool: &State<Pool>,
    uploads: &State<Arc<Uploads>>,
) -> Result<(ContentType, String), ApiError> {
    let query = pool.run(|conn| Ok(jobs::families(&job_statistics::open_jobs(conn)?, &job_statistics::buckets(conn)?)));
    let jobs = match tokio::time::timeout(DATABASE_TIMEOUT, query).await {
        Ok(Ok(families)) => Some(families),
        Ok(Err(error)) => {
            log::warn!("the metrics lack the jobs: {:#}", anyhow::Error::from(error));
            None
        }
        Err(_elapsed) => {
            log::warn!("the metrics lack the jobs: the database has not answered in {DATABASE_TIMEOUT:?}");
            None
        }
    };
    let encoder = TextEncoder::new();
    let text = encoder
        .encode_to_string(&metrics.gather(pool, uploads, jobs))
        .map_err(|error| ApiError::internal(error.into()))?;
    let content_type = ContentType::parse_flexible(encoder.format_type()).unwrap_or(ContentType::Plain);
    Ok((content_type, text))
}

/// Counts replies and their latencies, by the template of their route.
pub(super) struct RequestMetrics(pub(super) Metrics);

#[rocket::async_trait]
impl Fairing for RequestMetrics {
    fn info(&self) -> Info {
        Info { name: "request metrics", kind: Kind::Response }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let method = Arrival::of(request).method().as_str();
        // `/model/<id>/predict` is written as it is everywhere else: `/model/{id}/predict`.
        let route = request.route().map(|route| route.uri.path().replace('<', "{").replace('>', "}"));
        let route = route.as_deref().unwrap_or(NO_ROUTE);
        let status = response.status().code.to_string();
        self.0.requests.with_label_values(&[method, route, &status]).inc();
        let seconds = Arrival::of(request).elapsed().saturating_sub(HeldBack::of(request).get()).as_secs_f64();
        self.0.latencies.with_label_values(&[method, route]).observe(seconds);
    }
}

//! The figures of the jobs, which the database keeps, in Prometheus' terms.

use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use crate::db::job_statistics::{Bucket, OpenJobs};

/// Upper bounds of the durations that are told apart, in seconds: those that the migration counts by.
const BOUNDS: [f64; 14] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4];

/// Everything that is known of the jobs.
pub(super) fn families(open: &OpenJobs, buckets: &[Bucket]) -> Vec<MetricFamily> {
    let total = |event: &str| buckets.iter().filter(|bucket| bucket.event == event).map(|bucket| bucket.jobs).sum();
    let by_status = |status, metric| with_label(metric, "status", status);
    let ended = ["trained", "failed", "cancelled"].map(|status| by_status(status, counter(total(status))));
    let open_jobs =
        vec![by_status("queued", gauge(open.queued as f64)), by_status("training", gauge(open.training as f64))];
    let trainings = ["trained", "failed"].map(|status| by_status(status, histogram(buckets, status)));
    vec![
        family("ridgeline_jobs", "Jobs that have not ended.", MetricType::GAUGE, open_jobs),
        family(
            "ridgeline_oldest_queued_job_age_seconds",
            "How long the next job has been waiting; 0 where none waits.",
            MetricType::GAUGE,
            vec![gauge(open.oldest_seconds.unwrap_or_default().max(0.0))],
        ),
        family("ridgeline_jobs_ended_total", "Jobs that have ended.", MetricType::COUNTER, ended.into()),
        family(
            "ridgeline_job_wait_seconds",
            "From the acceptance of a job to its first attempt.",
            MetricType::HISTOGRAM,
            vec![histogram(buckets, "started")],
        ),
        family(
            "ridgeline_job_training_seconds",
            "From the beginning of a job's last attempt to its end.",
            MetricType::HISTOGRAM,
            trainings.into(),
        ),
        family(
            "ridgeline_leases_lost_total",
            "Attempts that ended without a word from their worker.",
            MetricType::COUNTER,
            vec![counter(total("lost"))],
        ),
    ]
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn with_label(mut metric: Metric, name: &str, value: &str) -> Metric {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    metric.set_label(vec![label]);
    metric
}

fn gauge(value: f64) -> Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

fn counter(value: i64) -> Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

/// The durations of an event; Prometheus' buckets hold all that lies below their bound.
fn histogram(buckets: &[Bucket], event: &str) -> Metric {
    let of_event = || buckets.iter().filter(|bucket| bucket.event == event);
    let cumulative = |bound: f64| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        let jobs: i64 = of_event().filter(|bucket| bucket.at_most <= bound).map(|bucket| bucket.jobs).sum();
        bucket.set_cumulative_count(jobs as u64);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(BOUNDS.map(cumulative).into());
    histogram.set_sample_count(of_event().map(|bucket| bucket.jobs).sum::<i64>() as u64);
    histogram.set_sample_sum(of_event().map(|bucket| bucket.seconds).sum());
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

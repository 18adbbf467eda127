//! Waiting for the end of a training, with a bar where somebody watches.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ureq::http::Response;

use super::options::Options;
use super::service::{Away, Call, Document, Service};
use super::text::field;

/// Seconds that the service may hold a reply back: with a bar to be drawn, and without.
const HOLD: (u32, u32) = (1, 50);
/// The pause where it does not hold it back, or is away.
const PAUSE: Duration = Duration::from_millis(500);
/// Steps of the bar.
const STEPS: u64 = 1000;

/// Whether somebody watches.
fn is_watched(options: &Options) -> bool {
    !options.quiet && io::stderr().is_terminal()
}

fn bar(options: &Options) -> ProgressBar {
    let target = if is_watched(options) { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(None, target)
}

/// A bar for an upload of so many bytes, or of nobody knows how many.
///
/// # Errors
/// None in practice: the template is fixed.
pub(super) fn upload_bar(options: &Options, length: Option<u64>) -> anyhow::Result<ProgressBar> {
    let template = match length {
        Some(_) => "sending [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}",
        None => "sending {spinner} {bytes}, {bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).context("the progress bar")?;
    Ok(bar(options).with_style(style.progress_chars("=> ")))
}

/// The document of the model `id` once it has ended.
///
/// # Errors
/// When the service refuses, or is away for longer than the patience for it.
pub(super) fn wait(service: &Service, id: i64, options: &Options) -> anyhow::Result<Document> {
    let bar = bar(options);
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent} %, {elapsed}").context("the progress bar")?;
    bar.set_style(style.progress_chars("=> "));
    bar.set_length(STEPS);
    let hold = if is_watched(options) { HOLD.0 } else { HOLD.1 };
    if !options.quiet && !is_watched(options) {
        // Who waits without a bar wants to know at least for what; if even that cannot be said, nobody wants to.
        let _unsaid = writeln!(io::stderr(), "waiting for model {id}");
    }
    let mut last_reply = Instant::now();
    loop {
        let asked = Call::get(format!("/model/{id}")).header("Prefer", format!("wait={hold}"));
        let (document, was_held) = match service.call(asked).and_then(read) {
            Ok(read) => read,
            Err(error) if error.is::<Away>() && last_reply.elapsed() < service.patience() => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(error),
        };
        last_reply = Instant::now();
        match field(&document.value, "status").as_str() {
            "queued" => bar
                .set_message(format!("model {id} is number {} in the queue", field(&document.value, "queue_position"))),
            "training" => {
                bar.set_message(format!("model {id} is training"));
                bar.set_position((document.value["progress"].as_f64().unwrap_or(0.0) * STEPS as f64) as u64);
            }
            _ => {
                bar.finish_and_clear();
                return Ok(document);
            }
        }
        if !was_held {
            thread::sleep(PAUSE);
        }
    }
}

/// The document of a reply, and whether the service has held it back.
fn read(reply: Response<ureq::Body>) -> anyhow::Result<(Document, bool)> {
    let was_held = reply.headers().contains_key("Preference-Applied");
    Ok((Document::read(reply)?, was_held))
}

//! Logging to standard output: one line an event, with time, level and target.
//!
//! The logger must stand before Rocket is built, because Rocket installs its own where it finds none.

use std::panic;

use chrono::{SecondsFormat, Utc};
use log::{LevelFilter, SetLoggerError};

/// Installs the logger and sends panics through it. [`set_level`] narrows it once the configuration is known.
///
/// # Errors
/// When a logger is installed already.
pub fn init() -> Result<(), SetLoggerError> {
    fern::Dispatch::new()
        .format(|out, message, record| {
            let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
            // A name that a client chose may hold line breaks, and must not be able to forge a line of its own.
            let text = message.to_string().replace('\n', "\\n").replace('\r', "\\r");
            out.finish(format_args!("{time} {:5} {} {text}", record.level(), record.target()));
        })
        // Rocket reports each request and its start over many lines: the access log and the listening line say it in one.
        .level_for("rocket", LevelFilter::Warn)
        .level_for("rocket::launch", LevelFilter::Error)
        .filter(|record| !record.target().starts_with("rocket::server") && !record.target().ends_with("::_"))
        .chain(std::io::stdout())
        .apply()?;
    panic::set_hook(Box::new(|info| log::error!(target: "panic", "{info}")));
    set_level(LevelFilter::Info);
    Ok(())
}

/// Drops everything less important than `level`.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

//! Logging: one line an event, with time, level and target. To standard output, except where a command's result goes there.
//!
//! The logger must stand before Rocket is built, because Rocket installs its own where it finds none.

use std::io::{self, Write};
use std::panic;

use chrono::{SecondsFormat, Utc};
use log::{LevelFilter, SetLoggerError};

/// Where the log goes.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// Of the processes that serve and train.
    StandardOutput,
    /// Of the commands, whose result is on standard output.
    StandardError,
}

/// Installs the logger and sends panics through it. [`set_level`] narrows it once the configuration is known.
///
/// # Errors
/// When a logger is installed already.
pub fn init(stream: Stream) -> Result<(), SetLoggerError> {
    fern::Dispatch::new()
        .format(|out, message, record| {
            let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
            // A name that a client chose may hold control characters, and must not be able to forge a line of its own.
            let text: String = message.to_string().chars().flat_map(escaped).collect();
            out.finish(format_args!("{time} {:5} {} {text}", record.level(), record.target()));
        })
        // Rocket reports each request and its start over many lines: the access log and the listening line say it in one.
        .level_for("rocket", LevelFilter::Warn)
        .level_for("rocket::launch", LevelFilter::Error)
        .filter(|record| !record.target().starts_with("rocket::server") && !record.target().ends_with("::_"))
        .chain(fern::Output::writer(Box::new(stream), "\n"))
        .apply()?;
    panic::set_hook(Box::new(|info| log::error!(target: "panic", "{info}")));
    set_level(LevelFilter::Info);
    Ok(())
}

/// A control character as its escape, everything else as it is.
fn escaped(character: char) -> impl Iterator<Item = char> {
    let is_control = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    let escape = is_control.then(|| character.escape_default());
    let plain = (!is_control).then_some(character);
    escape.into_iter().flatten().chain(plain)
}

/// A line that cannot be written is dropped. A full disk must not end the service, and there is nowhere to complain.
impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _dropped = match self {
            Self::StandardOutput => io::stdout().lock().write_all(bytes),
            Self::StandardError => io::stderr().lock().write_all(bytes),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _dropped = match self {
            Self::StandardOutput => io::stdout().lock().flush(),
            Self::StandardError => io::stderr().lock().flush(),
        };
        Ok(())
    }
}

/// Drops everything less important than `level`.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

//! The command line: `serve` (the default), `worker`, `migrate` or `key`.

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ridgeline::config::Config;
use ridgeline::logging::{self, Stream};
use ridgeline::{key, serve, worker};

/// Trains ridge regression behind a REST API and picks the penalty by cross-validation.
///
/// Configuration comes from Rocket.toml in the current folder (or the file that ROCKET_CONFIG names), DATABASE_URL and
/// ROCKET_* variables; Rocket.toml.example explains every key. The log goes to standard output, that of `key` to standard
/// error.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API, and keep the configured number of workers running (this is the default)
    Serve,
    /// Train queued models; any number of workers may run, on any hosts that reach the database
    Worker {
        /// Stop when standard input ends, as it does when the process that started the worker dies
        #[arg(long)]
        stop_with_stdin: bool,
    },
    /// Run the database migrations that are pending, and end; for where the others' role may not (they run them as well)
    Migrate,
    /// Add, list, rotate and revoke the API keys; works beside a running service and without one
    Key {
        #[command(subcommand)]
        command: key::command::Command,
    },
}

impl Command {
    /// Where the log goes.
    fn log_stream(&self) -> Stream {
        match self {
            Self::Serve | Self::Worker { .. } | Self::Migrate => Stream::StandardOutput,
            Self::Key { .. } => Stream::StandardError,
        }
    }
}

fn main() -> ExitCode {
    let command = Arguments::parse().command.unwrap_or(Command::Serve);
    // Without a logger there is nowhere to say why.
    if logging::init(command.log_stream()).is_err() {
        return ExitCode::FAILURE;
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let config = Config::load()?;
    logging::set_level(config.log_level);
    match command {
        Command::Serve => serve::run(config),
        Command::Worker { stop_with_stdin } => {
            let url = serve::database_to_join(&config)?;
            worker::run(&config, url, stop_with_stdin)
        }
        Command::Migrate => serve::migrate(&config),
        Command::Key { command } => key::command::run(&config, &command, &mut io::stdout().lock()),
    }
}

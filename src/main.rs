//! The command line: `serve` (the default) or `worker`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ridgeline::config::Config;
use ridgeline::{logging, serve, worker};

/// Trains ridge regression behind a REST API and picks the penalty by cross-validation.
///
/// Configuration comes from Rocket.toml in the current folder (or the file that ROCKET_CONFIG names), DATABASE_URL and
/// ROCKET_* variables; Rocket.toml.example explains every key. The log goes to standard output.
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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Without a logger there is nowhere to say why.
    if logging::init().is_err() {
        return ExitCode::FAILURE;
    }
    match run(arguments.command.unwrap_or(Command::Serve)) {
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
    }
}

//! The command line: `serve` (the default), `worker`, `migrate`, `key`, and the commands of the client.

mod help;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ridgeline::config::Config;
use ridgeline::logging::{self, Stream};
use ridgeline::{client, key, serve, worker};

/// Trains ridge regression behind a REST API and picks the penalty by cross-validation.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
The service is configured by Rocket.toml in the current folder (or the file that ROCKET_CONFIG names), DATABASE_URL and
ROCKET_* variables; Rocket.toml.example explains every key. Its log goes to standard output, that of `key` to standard error.
The client reads none of that: --server and --key, or RIDGELINE_SERVER and RIDGELINE_KEY, are all it needs.
Exit codes: 0 done; 1 refused, failed or not to be reached, as standard error (the log of a service) says; 2 wrong arguments.";

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
    #[command(flatten)]
    Client(client::Command),
}

fn main() -> ExitCode {
    let matches = help::grouped(Arguments::command()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let (stream, run): (_, Box<dyn FnOnce(Config) -> anyhow::Result<()>>) =
        match arguments.command.unwrap_or(Command::Serve) {
            Command::Client(command) => return client::run(&command),
            Command::Serve => (Stream::StandardOutput, Box::new(serve::run)),
            Command::Worker { stop_with_stdin } => (
                Stream::StandardOutput,
                Box::new(move |config| {
                    let url = serve::database_to_join(&config)?;
                    worker::run(&config, url, stop_with_stdin)
                }),
            ),
            Command::Migrate => (Stream::StandardOutput, Box::new(|config| serve::migrate(&config))),
            Command::Key { command } => (
                Stream::StandardError,
                Box::new(move |config| key::command::run(&config, &command, &mut io::stdout().lock())),
            ),
        };
    // Without a logger there is nowhere to say why.
    if logging::init(stream).is_err() {
        return ExitCode::FAILURE;
    }
    let result = Config::load().and_then(|config| {
        logging::set_level(config.log_level);
        run(config)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

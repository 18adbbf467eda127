//! What all of the client's commands take.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use ureq::http::Uri;

/// Where the service is, and what the output looks like.
#[derive(Debug, Args)]
#[command(next_help_heading = "Service and output")]
pub(super) struct Options {
    /// The address of the service
    #[arg(long, env = "RIDGELINE_SERVER", default_value = "http://127.0.0.1:8000", value_name = "URL", value_parser = server)]
    pub(super) server: String,
    /// The API key; the variable is the better place, because arguments are seen by everybody on the machine
    #[arg(long, env = "RIDGELINE_KEY", hide_env_values = true, value_name = "KEY")]
    pub(super) key: Option<Key>,
    /// A PEM file with the certificates to trust instead of those that the system trusts
    #[arg(long, env = "RIDGELINE_CACERT", value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,
    /// How long to keep trying while the service is busy (503), or away in the midst of a wait
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(super) patience: u64,
    /// Print JSON as the service sends it, with all digits
    #[arg(long)]
    pub(super) json: bool,
    /// Say nothing on standard error but errors: no progress
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// An API key. `Debug` hides it.
#[derive(Clone)]
pub(super) struct Key(String);

impl Key {
    /// The text itself, for the request alone; `None` if it is empty, as a variable may be.
    pub(super) fn expose(&self) -> Option<&str> {
        Some(self.0.trim()).filter(|key| !key.is_empty())
    }
}

impl FromStr for Key {
    type Err = std::convert::Infallible;

    // Any text is taken: clap would quote the one that it refuses.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The address that paths can be appended to.
fn server(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') && uri.query().is_none() => {
            Ok(text.to_owned())
        }
        _ => Err("it must be like http://host:port or https://host/path".to_owned()),
    }
}

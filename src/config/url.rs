//! The database's URL, and what libpq must know that it does not say.

use std::fmt;

use anyhow::{bail, ensure};

/// A database connection URL. It holds a password, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Accepts `postgres://` and `postgresql://` URLs, errors never quote the text.
    ///
    /// Rocket's parser vouches that the password ends where libpq thinks it does: libpq quotes the parts of a URL that it
    /// misunderstands in its messages, and those reach the log.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let Some(rest) = rest else {
            bail!("must start with postgres:// or postgresql://");
        };
        ensure!(
            is_percent_encoded(rest),
            "has a % that does not begin a percent-encoded character; a % itself is written %25"
        );
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !authority.is_empty() {
            let hint = "is not a valid URL; special characters of the password must be percent-encoded";
            let parsed =
                rocket::http::uri::Authority::parse(authority).map_err(|_quotes_the_url| anyhow::anyhow!(hint))?;
            ensure!(!parsed.host().contains('@') && !rest[authority.len()..].contains('@'), hint);
        }
        Ok(Self(with_defaults(url)))
    }

    /// The URL itself, for the connection only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether every `%` begins an encoded character that libpq takes.
fn is_percent_encoded(url: &str) -> bool {
    let is_code = |code: &str| {
        let digits = code.get(..2);
        digits.is_some_and(|digits| digits != "00" && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    url.split('%').skip(1).all(is_code)
}

/// What libpq would rather wait for without end, bounded, unless the URL has its own say.
fn with_defaults(url: &str) -> String {
    let settings = [
        ("connect_timeout", "5"),
        ("tcp_user_timeout", "15000"),
        // Who waits for an answer learns within half a minute that the other host is gone.
        ("keepalives_idle", "15"),
        ("keepalives_interval", "5"),
        ("keepalives_count", "3"),
        ("fallback_application_name", "ridgeline"),
    ];
    settings.iter().fold(url.to_owned(), |url, (name, value)| {
        let separator = if url.contains('?') { '&' } else { '?' };
        if url.contains(&format!("{name}=")) { url } else { format!("{url}{separator}{name}={value}") }
    })
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(hidden)")
    }
}

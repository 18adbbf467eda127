//! `ridgeline key`: adds, lists, rotates and revokes API keys. Its result goes to a writer, its log to standard error.

use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use diesel::Connection;
use diesel::pg::PgConnection;

use super::Secret;
use crate::config::Config;
use crate::db::{self, keys};
use crate::serve;

/// Longest name of a key, in characters; a CHECK of the table says the same.
const LONGEST_NAME: usize = 100;
/// How long a command waits for a database that is not there yet.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key and print it, this once: only its hash is stored
    Add {
        /// What to call it; no two keys in use have the same name
        name: String,
        /// Give it the models and datasets that were made while there were no keys
        #[arg(long)]
        adopt: bool,
    },
    /// List all keys, the revoked ones too
    List,
    /// Replace a key's secret and print the new key; what belongs to the key still does
    Rotate {
        /// The key's name
        name: String,
    },
    /// Refuse a key from now on; what belongs to it stays stored
    Revoke {
        /// The key's name
        name: String,
    },
}

/// Carries out `command` on the configured database, or else the private one, and writes its result to `out`.
///
/// # Errors
/// When the database cannot be had, the name is not what the command needs, or `out` cannot be written to.
pub fn run(config: &Config, command: &Command, out: &mut impl Write) -> anyhow::Result<()> {
    // Held until the connection is closed.
    let (url, _private) = serve::database_for_command(config)?;
    let conn = &mut db::connect_and_migrate(&url, PATIENCE, &AtomicBool::new(false))?;
    match command {
        Command::Add { name, adopt } => add(conn, name, *adopt, out),
        Command::List => list(conn, out),
        Command::Rotate { name } => rotate(conn, name, out),
        Command::Revoke { name } => {
            ensure!(keys::revoke(conn, name)?, "there is no key {name:?} in use");
            log::info!("the key {name:?} is revoked: running services refuse it within two seconds");
            Ok(())
        }
    }
}

fn add(conn: &mut PgConnection, name: &str, adopt: bool, out: &mut impl Write) -> anyhow::Result<()> {
    ensure!(
        (1..=LONGEST_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control),
        "a key's name has 1 to {LONGEST_NAME} characters, none of them a control character"
    );
    let secret = secret()?;
    let (id, adopted) = conn.transaction(|conn| -> anyhow::Result<_> {
        let Some(id) = keys::insert(conn, name, &secret.hash())? else {
            bail!("there is a key {name:?} in use already: choose another name, or rotate it");
        };
        Ok((id, adopt.then(|| keys::adopt(conn, id)).transpose()?))
    })?;
    print(out, &secret.expose(id))?;
    log::info!("added the key {name:?}; it is shown this once, and requests carry it as Authorization: Bearer");
    if let Some((models, datasets)) = adopted {
        log::info!("{models} models and {datasets} datasets that were made without a key belong to it now");
    } else if keys::has_ownerless_rows(conn)? {
        log::warn!(
            "models or datasets that were made without a key belong to nobody, and no key sees them; \
             `ridgeline key add NAME --adopt` gives them to a new key"
        );
    }
    Ok(())
}

fn rotate(conn: &mut PgConnection, name: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let secret = secret()?;
    let id = keys::set_hash(conn, name, &secret.hash())?;
    let id = id.with_context(|| format!("there is no key {name:?} in use"))?;
    print(out, &secret.expose(id))?;
    log::info!("the key {name:?} has a new secret; running services refuse the old one within two seconds");
    Ok(())
}

fn list(conn: &mut PgConnection, out: &mut impl Write) -> anyhow::Result<()> {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let or_dash = |at: Option<DateTime<Utc>>| at.map_or_else(|| "-".to_owned(), time);
    let mut lines = vec![["id", "created_at", "last_used_at", "revoked_at", "name"].map(str::to_owned)];
    lines.extend(keys::list(conn)?.into_iter().map(|key| {
        [key.id.to_string(), time(key.created_at), or_dash(key.last_used_at), or_dash(key.revoked_at), key.name]
    }));
    for [id, created, used, revoked, name] in lines {
        print(out, &format!("{id:>6}  {created:20}  {used:20}  {revoked:20}  {name}"))?;
    }
    Ok(())
}

fn secret() -> anyhow::Result<Secret> {
    Secret::generate().context("the operating system has no random numbers")
}

fn print(out: &mut impl Write, line: &str) -> anyhow::Result<()> {
    writeln!(out, "{line}").context("the result cannot be written to standard output")
}

//! The schema: the migrations that are embedded in the program, and whether the database has them.
//!
//! Looking takes no more than to read `__diesel_schema_migrations`: a role that may not change the schema starts all the
//! same, as long as there is nothing to change.

use std::collections::HashSet;

use anyhow::bail;
use diesel::migration::MigrationSource;
use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::Error;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
/// The advisory lock that lets one process at a time migrate: "ridge" in ASCII.
const MIGRATION_LOCK: i64 = 0x72_69_64_67_65;

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Bool)]
    answer: bool,
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Runs the migrations that are still pending. Several processes may call it at once.
///
/// # Errors
/// When a migration fails; it is rolled back, those before it stay. When some are pending and the role may not run them.
pub fn migrate(conn: &mut PgConnection) -> anyhow::Result<()> {
    if is_migrated(conn)? {
        return Ok(());
    }
    let may_migrate = "SELECT has_schema_privilege(current_schema(), 'CREATE') AS answer";
    if !sql_query(may_migrate).get_result::<Answer>(conn)?.answer {
        bail!(
            "the database lacks migrations, and this role may not run them: run `ridgeline migrate` with the role that \
             owns the schema"
        );
    }
    sql_query("SELECT pg_advisory_lock($1)").bind::<BigInt, _>(MIGRATION_LOCK).execute(conn)?;
    let result = conn.run_pending_migrations(MIGRATIONS).map(|done| done.iter().map(ToString::to_string).collect());
    let done: Vec<String> = result.map_err(|error| anyhow::anyhow!(error).context("a database migration failed"))?;
    sql_query("SELECT pg_advisory_unlock($1)").bind::<BigInt, _>(MIGRATION_LOCK).execute(conn)?;
    if !done.is_empty() {
        log::info!("ran the database migrations {}", done.join(", "));
    }
    Ok(())
}

/// Whether every embedded migration has been run.
///
/// # Errors
/// When the database cannot be asked.
pub fn is_migrated(conn: &mut PgConnection) -> Result<bool, Error> {
    let exists = "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS answer";
    if !sql_query(exists).get_result::<Answer>(conn)?.answer {
        return Ok(false);
    }
    let applied = sql_query("SELECT version FROM __diesel_schema_migrations").load::<Applied>(conn)?;
    let applied: HashSet<String> = applied.into_iter().map(|applied| applied.version).collect();
    let embedded = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(Error::Unavailable)?;
    Ok(embedded.iter().all(|migration| applied.contains(&migration.name().version().to_string())))
}

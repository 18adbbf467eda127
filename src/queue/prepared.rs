//! Statements in SQL that a connection parses once and plans a few times, and then only runs: those of `diesel::sql_query` take
//! two questions each time.

/// Makes `$name` a query whose SQL is always the same and whose rows are of the type `$row`; how it is written says
/// [`diesel::query_builder::QueryFragment`].
macro_rules! prepared {
    ($name:ident, $row:ty) => {
        impl diesel::query_builder::QueryId for $name<'_> {
            type QueryId = $name<'static>;

            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl diesel::query_builder::Query for $name<'_> {
            type SqlType = $row;
        }

        impl diesel::RunQueryDsl<diesel::pg::PgConnection> for $name<'_> {}
    };
}

pub(super) use prepared;

// @generated automatically by Diesel CLI.

diesel::table! {
    api_keys (id) {
        id -> Int4,
        name -> Text,
        hash -> Bytea,
        created_at -> Timestamptz,
        last_used_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    dataset_chunks (dataset_id, position) {
        dataset_id -> Int4,
        position -> Int4,
        cells -> Bytea,
        others -> Nullable<Bytea>,
        n_pages -> Int4,
    }
}

diesel::table! {
    dataset_pages (dataset_id, position, page) {
        dataset_id -> Int4,
        position -> Int4,
        page -> Int4,
        cells -> Bytea,
    }
}

diesel::table! {
    datasets (id) {
        id -> Int4,
        created_at -> Timestamptz,
        column_names -> Jsonb,
        n_rows -> Int8,
        owner -> Nullable<Int4>,
        name -> Nullable<Text>,
        is_standalone -> Bool,
        statistics -> Nullable<Jsonb>,
        idempotency_key -> Nullable<Text>,
        request_digest -> Nullable<Bytea>,
        arriving_until -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    job_statistics (event, at_most) {
        event -> Text,
        at_most -> Float8,
        jobs -> Int8,
        seconds -> Float8,
    }
}

diesel::table! {
    models (id) {
        id -> Int4,
        dataset_id -> Nullable<Int4>,
        name -> Nullable<Text>,
        params -> Jsonb,
        status -> Text,
        attempt -> Int4,
        lease_token -> Nullable<Int8>,
        lease_until -> Nullable<Timestamptz>,
        progress -> Float8,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
        model -> Nullable<Jsonb>,
        cv_results -> Nullable<Jsonb>,
        best -> Nullable<Jsonb>,
        metrics -> Nullable<Jsonb>,
        warnings -> Jsonb,
        error -> Nullable<Text>,
        owner -> Nullable<Int4>,
        idempotency_key -> Nullable<Text>,
        request_digest -> Nullable<Bytea>,
        tags -> Jsonb,
    }
}

diesel::joinable!(dataset_chunks -> datasets (dataset_id));
diesel::joinable!(datasets -> api_keys (owner));
diesel::joinable!(models -> api_keys (owner));
diesel::joinable!(models -> datasets (dataset_id));

diesel::allow_tables_to_appear_in_same_query!(
    api_keys,
    dataset_chunks,
    dataset_pages,
    datasets,
    job_statistics,
    models,
);

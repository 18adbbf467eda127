//! The service as its users meet it: the real binary over real HTTP, real worker processes, a real PostgreSQL.
//!
//! One binary, so that there is one to build and one database server to start; a file for each part of the contract.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "the logs of the processes of a test that failed")]

mod backup;
mod bodies;
mod cancel;
mod chaos;
mod client;
mod client_faults;
mod command_line;
mod configuration;
mod connections;
mod contract;
mod database;
mod database_faults;
mod datasets;
mod disk_full;
mod documentation;
mod documents;
mod engine;
mod export;
mod faults;
mod hostile;
mod idempotency;
mod inference;
mod keys;
mod larger_than_memory;
mod limits;
mod load;
mod manage;
mod metrics;
mod model;
mod model_cache;
mod openapi;
mod operating;
mod postman;
mod predict;
mod private_server;
mod proxy;
mod queue;
mod races;
mod reliability;
mod retention;
mod roles;
mod service_faults;
mod streaming;
mod support;
mod tls;
mod train;
mod waiting;
mod worker_faults;

//! Ridgeline: a REST service that trains ridge regression and picks the penalty by k-fold cross-validation.
//!
//! Two roles share this crate and one binary. `ridgeline serve` answers HTTP and queues trainings; `ridgeline worker`
//! takes them from the queue, which is a table in PostgreSQL, and trains. Training never runs inside the API's process.
//!
//! | module | what it is |
//! |---|---|
//! | [`client`] | the command-line client of a running service |
//! | [`config`] | one typed configuration for both roles |
//! | [`key`] | API keys, and the command that makes them |
//! | [`logging`] | one line an event, to standard output |
//! | [`postgres`] | the private PostgreSQL for when none is configured |
//! | [`db`] | connections, migrations, tables |
//! | [`queue`] | the state machine of a job, and the only SQL of the queue |
//! | [`serve`], [`supervisor`] | the API's process, and the workers that it keeps running |
//! | [`retention`] | what is dropped when its time is over |
//! | [`worker`] | the loop that runs jobs |
//! | [`training`] | dataset and parameters to engine to result |
//! | [`ridge`] | the engine: pure mathematics |
//! | [`table`] | CSV to numbers |
//! | `pace` | how often a connection is looked at for announcements |
//! | [`watch`] | tells whoever waits for a model what becomes of it |
//! | [`model_cache`] | keeps trained models where they are predicted from |
//! | [`web`] | routes, requests, replies, errors |

// Linked for its symbols alone: ndarray and LAPACK call them.
extern crate openblas_src as _;

pub mod client;
pub mod config;
pub mod db;
pub mod key;
pub mod logging;
pub mod model_cache;
mod pace;
pub mod postgres;
pub mod queue;
pub mod retention;
pub mod ridge;
pub mod serve;
pub mod supervisor;
pub mod table;
pub mod training;
pub mod watch;
pub mod web;
pub mod worker;

//! Larger tests of the engine.
#![allow(clippy::unwrap_used)]

mod nist;

//! Correct digits; also compiled into the program that prints the table of `docs/engine.md`.

/// Correct decimal digits (NIST's log relative error), 16 at most.
///
/// The truth is a number in a string. Zero in exact arithmetic is written as 1e-230 by arithmetic of 120 digits.
pub(super) fn digits(found: f64, truth: &serde_json::Value) -> f64 {
    let truth: f64 = truth.as_str().and_then(|truth| truth.parse().ok()).unwrap_or(f64::NAN);
    let error = if truth.abs() < 1e-200 { found.abs() } else { ((found - truth) / truth).abs() };
    if error == 0.0 { 16.0 } else { (-error.log10()).min(16.0) }
}

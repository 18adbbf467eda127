//! What the service sends, as text for people: tables without borders, numbers with seven digits.

use std::fmt;
use std::io::{self, Write};

use comfy_table::CellAlignment::{self, Left, Right};
use comfy_table::{Table, presets};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::service::Document;

/// Coefficients and columns that are shown at most; `--json` has them all.
const MOST_ROWS: usize = 50;
/// Digits of a number, as many as R prints.
const DIGITS: usize = 7;

/// What has become of a training that nobody waits for.
pub(super) fn accepted(accepted: &Document, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "model {}: queued", field(&accepted.value, "model_id"))
}

/// A line that says what state a model is in, and why or how far.
pub(super) fn status(model: &Document, out: &mut impl Write) -> io::Result<()> {
    let model = &model.value;
    let (id, status) = (field(model, "model_id"), field(model, "status"));
    match &model["name"] {
        Value::String(name) => write!(out, "model {id} ({}): {status}", clean(name))?,
        _ => write!(out, "model {id}: {status}")?,
    }
    if let Some(error) = model["error"].as_str() {
        write!(out, ": {}", clean(error))?;
    }
    if let Some(position) = model["queue_position"].as_u64() {
        write!(out, ", number {position} in the queue")?;
    }
    if let Some(progress) = model["progress"].as_f64() {
        write!(out, ", {:.0} %", progress * 100.0)?;
    }
    writeln!(out)
}

/// A model: its state, and once it is trained how it was chosen and what it is.
pub(super) fn model(document: &Document, out: &mut impl Write) -> io::Result<()> {
    status(document, out)?;
    let model = &document.value;
    let (params, metrics) = (&model["params"], &model["metrics"]);
    let mut facts = vec![format!("target {}", clean(&field(params, "target")))];
    for (name, noun) in [("n_rows", "rows"), ("n_features", "features"), ("n_folds", "folds")] {
        facts.extend(metrics[name].as_u64().map(|count| format!("{count} {noun}")));
    }
    for name in ["fold_column", "weight_column", "seed"] {
        if !params[name].is_null() {
            facts.push(format!("{} {}", name.replace('_', " "), clean(&field(params, name))));
        }
    }
    facts.extend((params["loss"] == "sum").then(|| "loss sum".to_owned()));
    facts.extend((params["standardize"] == true).then(|| "standardized".to_owned()));
    facts.extend((params["fit_intercept"] == false).then(|| "no intercept".to_owned()));
    writeln!(out, "{}", facts.join(", "))?;
    if let Some(tags) = tags(model) {
        writeln!(out, "tags {tags}")?;
    }
    for warning in model["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        writeln!(out, "warning: {}", clean(warning))?;
    }
    let Some(scores) = model["cv_results"].as_array() else {
        return Ok(());
    };
    let best = &model["best"]["param_value"];
    let rows = scores.iter().map(|score| {
        let mark = if score["param_value"] == *best { "best" } else { "" };
        let [penalty, mean, std] = ["param_value", "mean_mse", "std_mse"].map(|name| number(&score[name]));
        vec![penalty, mean, std, mark.to_owned()]
    });
    writeln!(out)?;
    table(&[("l2", Right), ("mean MSE", Right), ("std MSE", Right), ("", Left)], rows, out)?;
    let [r2, rmse] = ["r2", "rmse"].map(|name| number(&metrics[name]));
    writeln!(out, "\non all rows: R2 {r2}, RMSE {rmse}\n")?;

    let intercept = vec!["(intercept)".to_owned(), number(&model["model"]["intercept"])];
    let InOrder(coef) = coefficients(document)?;
    let shown = coef.iter().take(MOST_ROWS).map(|(name, value)| vec![clean(name), significant(*value)]);
    table(&[("column", Left), ("coefficient", Right)], [intercept].into_iter().chain(shown), out)?;
    more(coef.len(), out)
}

/// The coefficients in the order of the columns, which a [`Value`] does not keep.
fn coefficients(document: &Document) -> io::Result<InOrder> {
    #[derive(Deserialize)]
    struct Trained {
        model: Coefficients,
    }
    #[derive(Deserialize)]
    struct Coefficients {
        coef: InOrder,
    }
    let trained: Trained = serde_json::from_str(&document.text)?;
    Ok(trained.model.coef)
}

/// The entries of an object in their order.
struct InOrder(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A list of models.
pub(super) fn models(list: &Document, out: &mut impl Write) -> io::Result<()> {
    let list = &list.value;
    let rows = list["models"].as_array().into_iter().flatten().map(|model| {
        let [id, status, name] = ["model_id", "status", "name"].map(|name| clean(&field(model, name)));
        let [penalty, mse] = ["param_value", "mean_mse"].map(|name| number(&model["best"][name]));
        vec![id, penalty, mse, status, time(model), name, tags(model).unwrap_or_else(|| "-".to_owned())]
    });
    let numbers = [("model", Right), ("l2", Right), ("mean MSE", Right)];
    let words = [("status", Left), ("created", Left), ("name", Left), ("tags", Left)];
    table(&[&numbers[..], &words].concat(), rows, out)?;
    next(list, out)
}

/// A list of datasets.
pub(super) fn datasets(list: &Document, out: &mut impl Write) -> io::Result<()> {
    let list = &list.value;
    let rows = list["datasets"].as_array().into_iter().flatten().map(|dataset| {
        let [id, rows, columns, name] =
            ["dataset_id", "n_rows", "n_columns", "name"].map(|name| clean(&field(dataset, name)));
        vec![id, rows, columns, time(dataset), name]
    });
    let numbers = [("dataset", Right), ("rows", Right), ("columns", Right)];
    table(&[&numbers[..], &[("created", Left), ("name", Left)]].concat(), rows, out)?;
    next(list, out)
}

/// A dataset: its size, its users, what its columns are like.
pub(super) fn dataset(dataset: &Document, out: &mut impl Write) -> io::Result<()> {
    let dataset = &dataset.value;
    let [id, rows, columns, users] = ["dataset_id", "n_rows", "n_columns", "n_models"].map(|name| field(dataset, name));
    match &dataset["name"] {
        Value::String(name) => write!(out, "dataset {id} ({})", clean(name))?,
        _ => write!(out, "dataset {id}")?,
    }
    writeln!(out, ": {rows} rows, {columns} columns, {users} models\n")?;
    let all = dataset["columns"].as_array();
    let rows = all.into_iter().flatten().take(MOST_ROWS).map(|column| {
        let figures = ["min", "max", "mean", "std"].map(|name| number(&column[name]));
        [clean(&field(column, "name"))].into_iter().chain(figures).collect()
    });
    let figures = ["min", "max", "mean", "std"].map(|name| (name, Right));
    table(&[&[("column", Left)][..], &figures].concat(), rows, out)?;
    more(all.map_or(0, Vec::len), out)
}

/// How many rows of a table are not shown.
fn more(n_rows: usize, out: &mut impl Write) -> io::Result<()> {
    match n_rows.saturating_sub(MOST_ROWS) {
        0 => Ok(()),
        more => writeln!(out, "and {more} more: --json prints all"),
    }
}

/// Where a list goes on.
fn next(list: &Value, out: &mut impl Write) -> io::Result<()> {
    match list["next"].as_i64() {
        Some(next) => writeln!(out, "\nmore with --after {next}"),
        None => Ok(()),
    }
}

/// Columns two blanks apart: numbers to the right, words to the left.
fn table(
    header: &[(&str, CellAlignment)],
    rows: impl IntoIterator<Item = Vec<String>>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|(name, _)| *name)).add_rows(rows);
    for (column, (_, alignment)) in table.column_iter_mut().zip(header) {
        column.set_cell_alignment(*alignment);
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A field as text, `-` where there is nothing.
pub(super) fn field(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A model's tags, if it has any.
fn tags(model: &Value) -> Option<String> {
    let tags: Vec<&str> = model["tags"].as_array()?.iter().filter_map(Value::as_str).collect();
    (!tags.is_empty()).then(|| clean(&tags.join(",")))
}

/// When something was made, to the second.
fn time(object: &Value) -> String {
    let text = clean(&field(object, "created_at"));
    match text.split_once('.') {
        Some((seconds, _)) => format!("{}Z", seconds.replace('T', " ")),
        None => text,
    }
}

/// A number with seven significant digits, `-` where there is none.
fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), significant)
}

/// A number with seven significant digits, without zeros at the end.
fn significant(value: f64) -> String {
    let scientific = format!("{value:.*e}", DIGITS - 1);
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let places = DIGITS as i32 - 1 - exponent;
    if (-5..DIGITS as i32).contains(&exponent) {
        trimmed(&format!("{value:.*}", places.max(0) as usize)).to_owned()
    } else {
        format!("{}e{exponent}", trimmed(digits))
    }
}

/// Decimals without the zeros at their end.
fn trimmed(decimals: &str) -> &str {
    if decimals.contains('.') { decimals.trim_end_matches('0').trim_end_matches('.') } else { decimals }
}

/// A text without characters that a terminal would take for commands.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_seven_significant_digits_and_no_more_zeros_than_needed() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-0.1, "-0.1"),
            (255.926_389_748_794_18, "255.9264"),
            (9_999_999.9, "1e7"),
            (9_999_999.0, "9999999"),
            (1_000_000.0, "1000000"),
            (0.000_012_345_678_9, "0.00001234568"),
            (1e-6, "1e-6"),
            (-1.234_567_89e300, "-1.234568e300"),
        ] {
            assert_eq!(significant(value), text, "{value:?}");
        }
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        assert_eq!(clean("a\x1b[31m\nb\u{9b}c"), "a\u{fffd}[31m\u{fffd}b\u{fffd}c");
    }
}

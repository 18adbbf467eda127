//! A model as a Python program without any dependency: a module with `predict`, and a filter from CSV to CSV.

use std::fmt::Write;

use serde_json::Value;

use super::Exported;

/// The text of the program. Names stand in it as literals only, whatever characters they hold.
pub(super) fn write(exported: &Exported) -> String {
    // A JSON string is a Python string with the same value, and the shortest decimals that read back as a double are
    // written alike.
    let literal = |text: &str| Value::from(text).to_string();
    let mut program = format!(
        "# Model {} of Ridgeline {}. As a program: python3 model.py < rows.csv > predictions.csv\n\
         import csv, math\n\n\
         NAME = {}\nTARGET = {}\nINTERCEPT = {:?}\nCOEF = {{\n",
        exported.id,
        env!("CARGO_PKG_VERSION"),
        exported.name.as_deref().map_or_else(|| "None".to_owned(), literal),
        literal(&exported.target),
        exported.model.intercept
    );
    for (feature, coef) in exported.model.features.iter().zip(&exported.model.coef) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(program, "    {}: {coef:?},", literal(feature));
    }
    program.push_str(
        "}\n\n\n\
         def predict(rows):\n\
         \x20   \"\"\"The predictions for rows, each a mapping from the names of columns to numbers.\n\n\
         \x20   With numpy, for an array X with the columns in the order of COEF: X @ list(COEF.values()) + INTERCEPT\n\
         \x20   \"\"\"\n\
         \x20   return [math.fsum([INTERCEPT, *(w * float(row[name]) for name, w in COEF.items())]) for row in rows]\n\n\n\
         if __name__ == \"__main__\":\n\
         \x20   with open(0, encoding=\"utf-8-sig\", newline=\"\") as rows:\n\
         \x20       print(\"prediction\", *map(repr, predict(csv.DictReader(rows))), sep=\"\\n\")\n",
    );
    program
}

//! CSV to numbers.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Table;
use super::cells::Records;
use super::error::{CsvError, shown};

/// Most columns of a CSV.
pub(super) const MOST_COLUMNS: usize = 100_000;
/// Most bytes of all column names: what a jsonb value holds, with room to spare.
pub(super) const LONGEST_HEADER: usize = 16 << 20;

/// Reads a table of numbers: every cell of every column must be one.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn read(text: &str) -> Result<Table, CsvError> {
    let mut records = Records::new(text);
    let (line, header) = read_header(&mut records)?;
    let mut seen = HashMap::new();
    for (column, name) in header.iter().enumerate() {
        if name.is_empty() {
            return Err(CsvError::UnnamedColumn { line, column });
        }
        if name.contains('\0') {
            return Err(CsvError::NulInName { line, column });
        }
        if let Some(first) = seen.insert(name.as_ref(), column) {
            return Err(CsvError::DuplicateColumn { line, name: name.to_string(), first, second: column });
        }
    }
    let wanted: Vec<usize> = (0..header.len()).collect();
    let cells = numbers(&mut records, &header, &wanted, text.len())?;
    let columns = header.iter().map(ToString::to_string).collect();
    Table::new(columns, cells).ok_or(CsvError::Empty)
}

/// Reads the columns `names`, in that order, as a row-major matrix of shape `(rows, names.len())`.
///
/// Other columns may hold anything.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn read_columns(text: &str, names: &[String]) -> Result<Vec<f64>, CsvError> {
    let mut records = Records::new(text);
    let (line, header) = read_header(&mut records)?;
    let mut positions: HashMap<&str, usize> = HashMap::new();
    let mut duplicates: HashMap<&str, (usize, usize)> = HashMap::new();
    for (column, name) in header.iter().enumerate() {
        if let Some(&first) = positions.get(name.as_ref()) {
            duplicates.entry(name).or_insert((first, column));
        } else {
            positions.insert(name, column);
        }
    }
    let mut wanted = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for name in names {
        if let Some(&(first, second)) = duplicates.get(name.as_str()) {
            return Err(CsvError::DuplicateColumn { line, name: name.clone(), first, second });
        }
        match positions.get(name.as_str()) {
            Some(&column) => wanted.push(column),
            None => missing.push(name.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(CsvError::MissingColumns { names: missing });
    }
    numbers(&mut records, &header, &wanted, text.len())
}

/// Reads the header and the line that it is on.
fn read_header<'a>(records: &mut Records<'a>) -> Result<(usize, Vec<Cow<'a, str>>), CsvError> {
    let mut names = Vec::new();
    let line = records.next(MOST_COLUMNS, &mut names)?.ok_or(CsvError::Empty)?;
    if names.len() > MOST_COLUMNS {
        return Err(CsvError::TooManyColumns);
    }
    if names.iter().map(|name| name.len()).sum::<usize>() > LONGEST_HEADER {
        return Err(CsvError::HeaderTooLong);
    }
    Ok((line, names))
}

/// The line of the CSV on which row `row` (from 0) begins, for messages about rows that were read before.
pub fn line_of_row(text: &str, row: usize) -> Option<usize> {
    let mut records = Records::new(text);
    let mut cells = Vec::new();
    for _ in 0..=row {
        records.next(usize::MAX, &mut cells).ok()??;
    }
    records.next(usize::MAX, &mut cells).ok()?
}

/// Reads the rest of the records: of each, the columns `wanted`.
fn numbers<'a>(
    records: &mut Records<'a>,
    header: &[Cow<'a, str>],
    wanted: &[usize],
    size: usize,
) -> Result<Vec<f64>, CsvError> {
    // Twelve characters a number is an ordinary file's density; the vector grows where it is higher.
    let mut values = Vec::with_capacity(size / 12 * wanted.len() / header.len());
    let mut cells = Vec::with_capacity(header.len());
    let expected = header.len();
    while let Some(line) = records.next(expected, &mut cells)? {
        if cells.len() > expected {
            return Err(CsvError::ExtraCells { line, expected });
        }
        if let Some(next) = header.get(cells.len()) {
            return Err(CsvError::MissingCells { line, expected, found: cells.len(), next: next.to_string() });
        }
        for &column in wanted {
            let bad = |reason| CsvError::BadCell { line, column: header[column].to_string(), reason };
            values.push(number(&cells[column]).map_err(bad)?);
        }
    }
    values.shrink_to_fit();
    Ok(values)
}

/// The finite number that a cell holds, or what is wrong with it.
fn number(cell: &str) -> Result<f64, String> {
    match cell.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        // "inf" and "NaN" parse too; digits that end in an infinity are a number that is too large.
        Ok(_) if cell.bytes().any(|byte| byte.is_ascii_digit()) => {
            Err(format!("{} is too large for a 64-bit floating-point number", shown(cell)))
        }
        Ok(_) => Err(format!("{} is not a finite number", shown(cell))),
        Err(_) if cell.is_empty() => Err("the cell is empty".to_owned()),
        Err(_) => Err(format!("{} is not a number", shown(cell))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> (Vec<String>, Vec<f64>) {
        let table = read(text).unwrap();
        (table.columns().to_vec(), table.cells().to_vec())
    }

    #[test]
    fn what_people_write_reads_as_the_same_numbers() {
        let expected = (vec!["a".to_owned(), "b c".to_owned()], vec![1.0, -2.5, 3e3, 0.5]);
        let writings = [
            ("a,b c\n1,-2.5\n3e3,.5\n", "plain"),
            ("a,b c\n1,-2.5\n3e3,.5", "no line end at the end"),
            ("\u{feff}a,b c\r\n1,-2.5\r\n3e3,.5\r\n", "byte order mark and CRLF"),
            ("\n \n a , b c \n\n 1 ,\t-2.5 \n  \r\n3e3,.5\n\n\n", "blank lines and blanks"),
            ("\"a\", \"b c\" \n\"1\",\" -2.5\"\n 3e3 , \".5\" \n", "quoted, with blanks around the quotes"),
            ("a,b c\n+1,-2.50\n3E+3,5e-1\n", "other ways to write the numbers"),
        ];
        for (text, why) in writings {
            assert_eq!(table(text), expected, "{why}");
        }
    }

    #[test]
    fn names_keep_what_quoting_protects() {
        let (columns, cells) =
            table("\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",\"\"\"\",__proto__,\u{1f600}\n1,2,3,4,5,6\n");
        assert_eq!(columns, ["a,b", "say \"hi\"", "two\nlines", "\"", "__proto__", "\u{1f600}"]);
        assert_eq!(cells, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn every_finite_double_survives_its_shortest_decimal() {
        let values = [5e-324, 1.797_693_134_862_315_7e308, -0.0, 0.1 + 0.2, 1.0 / 3.0];
        let text = values.iter().fold("x\n".to_owned(), |text, value| text + &format!("{value:?}\n"));
        let bits: Vec<u64> = table(&text).1.iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits, values.map(f64::to_bits));
    }

    #[test]
    fn bad_tables_are_refused_with_the_place() {
        let cases = [
            ("", "the CSV is empty: it needs a header line with the column names"),
            (" \n\n", "the CSV is empty: it needs a header line with the column names"),
            ("a,,c\n1,2,3\n", "line 1: column 2 has no name"),
            ("a,b, a \n1,2,3\n", "line 1: columns 1 and 3 are both called \"a\""),
            ("a,b\0\n1,2\n", "line 1: the name of column 2 holds a NUL character"),
            ("a,b\n1,2\n\n3\n", "line 4 has 1 cell, but the header has 2 columns: the cell of column \"b\" is missing"),
            ("a,b\n1,2,3\n", "line 2 has more cells than the header, which has 2 columns"),
            ("a,b\n1,\n", "line 2, column \"b\": the cell is empty"),
            ("a,b\n1,\"\"\n", "line 2, column \"b\": the cell is empty"),
            ("a,b\n1,NA\n", "line 2, column \"b\": \"NA\" is not a number"),
            ("a,b\n1,null\n", "line 2, column \"b\": \"null\" is not a number"),
            ("a,b\nNaN,1\n", "line 2, column \"a\": \"NaN\" is not a finite number"),
            ("a,b\n1,-inf\n", "line 2, column \"b\": \"-inf\" is not a finite number"),
            ("a,b\n1,1e999\n", "line 2, column \"b\": \"1e999\" is too large for a 64-bit floating-point number"),
            ("a,b\n1,2\0\n", "line 2, column \"b\": \"2\\0\" is not a number"),
            ("a,b\n1,1;5\n", "line 2, column \"b\": \"1;5\" is not a number"),
            ("\"a\nb\",c\n1,x\n", "line 3, column \"c\": \"x\" is not a number"),
            ("a,b\r1,2\r", "line 1, column 2: a carriage return must be followed by a line feed"),
            (&",".repeat(100_000), "the header has more than 100000 columns"),
            (&"x".repeat(20_000_000), "the column names are longer than 16777216 bytes in all"),
            ("a,b\n1,\"2\n", "line 2, column 2: the quote that opens the cell is never closed"),
            ("a,b\n\"1\"x,2\n", "line 2, column 1: a quoted cell must end at a comma or at the end of the line"),
        ];
        for (text, message) in cases {
            assert_eq!(read(text).unwrap_err().to_string(), message, "{}", shown(text));
        }
    }

    #[test]
    fn a_long_cell_is_cut_in_the_message() {
        let text = format!("a\n{}\n", "z".repeat(10_000));
        let message = read(&text).unwrap_err().to_string();
        assert!(message.len() < 120, "{message}");
    }

    #[test]
    fn wanted_columns_are_matched_by_name_and_others_ignored() {
        let names = ["b".to_owned(), "a".to_owned()];
        let values = read_columns("note,a,b,note,\nx\0y,1,2,\"a,\nb\",\n,3,4,5,6\n", &names).unwrap();
        assert_eq!(values, [2.0, 1.0, 4.0, 3.0]);
        assert!(read_columns("a,b\n", &names).unwrap().is_empty());
    }

    #[test]
    fn missing_and_ambiguous_columns_are_named() {
        let names: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let message = |text| read_columns(text, &names).unwrap_err().to_string();
        assert_eq!(message("b\n1\n"), "the CSV lacks the columns \"a\", \"c\"");
        assert_eq!(message("b,a\n1,2\n"), "the CSV lacks the column \"c\"");
        assert_eq!(message("a,b,c,a\n1,2,3,4\n"), "line 1: columns 1 and 4 are both called \"a\"");
        assert_eq!(message("a,b,c\n1,2,x\n"), "line 2, column \"c\": \"x\" is not a number");
    }

    #[test]
    fn a_row_is_found_again_by_its_line() {
        let text = "\"a\nb\"\n\n1\n2\n\n3";
        assert_eq!([0, 1, 2, 3].map(|row| line_of_row(text, row)), [Some(4), Some(5), Some(7), None]);
    }
}

//! A whole CSV to a table, and what a cell says.

use super::Table;
use super::error::CsvError;
use super::error::shown;
use super::pieces::{Piece, Pieces};
use super::reader::{Header, ReadError, Reader};

/// Reads a table of numbers: every cell of every column must be one.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn read(text: &str) -> Result<Table, ReadError> {
    let (header, cells) = read_with(text, Reader::of_all)?;
    Ok(Table::new(header.names().to_vec(), cells).ok_or(CsvError::Empty)?)
}

/// Reads what `choose` chooses when it has seen the header.
fn read_with(
    text: &str,
    choose: impl Fn(&Header) -> Result<Reader, CsvError>,
) -> Result<(Header, Vec<f64>), ReadError> {
    let mut pieces = Pieces::default();
    let mut found: Option<(Header, Reader)> = None;
    let mut cells = Vec::new();
    let mut take = |mut piece: Piece| {
        if found.is_none()
            && let Some(header) = Header::take(&mut piece)?
        {
            let reader = choose(&header)?;
            found = Some((header, reader));
        }
        if let Some((_, reader)) = &found {
            cells.extend(reader.read(&piece)?);
        }
        Ok::<_, ReadError>(())
    };
    for chunk in text.as_bytes().chunks(CHUNK) {
        pieces.push(chunk);
        while let Some(piece) = pieces.next_piece()? {
            take(piece)?;
        }
    }
    pieces.last().map_or(Ok(()), take)?;
    cells.shrink_to_fit();
    Ok((found.ok_or(CsvError::Empty)?.0, cells))
}

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// The finite number that a cell holds, or what is wrong with it.
pub(super) fn number(cell: &str) -> Result<f64, String> {
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

    fn read_columns(text: &str, names: &[String]) -> Result<Vec<f64>, ReadError> {
        Ok(read_with(text, |header| Reader::of(header, names))?.1)
    }

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
        let mut pieces = Pieces::default();
        pieces.push(b"\"a\nb\"\n\n1\n2\n\n3");
        let mut piece = pieces.last().unwrap();
        Header::take(&mut piece).unwrap().unwrap();
        assert_eq!([0, 1, 2, 3].map(|row| piece.line_of_row(row)), [Some(4), Some(5), Some(7), None]);
    }
}

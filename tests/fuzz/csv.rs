//! Any bytes as a CSV that arrives in chunks of any size.

use ridgeline::table::{self, CsvError, Header, Piece, Pieces, ReadError, Reader, Table};

/// What was read, or what is wrong with it.
type Outcome = Result<(Table, Vec<usize>), ReadError>;

/// Reads the input in every way, and writes what was read.
pub(crate) fn run(input: &[u8]) {
    let outcome = read(input, input.len().max(1), Reader::of_all);
    // However it arrives, it says the same.
    for size in [1, 2, 3, 7] {
        assert_eq!(comparable(&read(input, size, Reader::of_all)), comparable(&outcome), "in chunks of {size}");
    }
    match &outcome {
        Ok((table, lines)) => check_table(input, table, lines),
        Err(error) => check_message(&error.to_string()),
    }
    // Whoever wants no column in particular, or one that is there, is told no more than a line either.
    for wanted in [vec![], vec!["a".to_owned()]] {
        if let Err(error) = read(input, 5, |header| Reader::of(header, &wanted)) {
            check_message(&error.to_string());
        }
    }
}

/// The table that `choose` takes of the input, and the lines of its rows.
fn read(input: &[u8], chunk: usize, choose: impl Fn(&Header) -> Result<Reader, CsvError>) -> Outcome {
    let mut pieces = Pieces::default();
    let mut found: Option<(Header, Reader)> = None;
    let (mut cells, mut lines) = (Vec::new(), Vec::new());
    let mut take = |mut piece: Piece| {
        if found.is_none()
            && let Some(header) = Header::take(&mut piece)?
        {
            let reader = choose(&header)?;
            found = Some((header, reader));
        }
        if let Some((_, reader)) = &found {
            let new = reader.read(&piece)?;
            let n_rows = new.len().checked_div(reader.n_columns()).unwrap_or(0);
            lines.extend((0..n_rows).map(|row| piece.line_of_row(row).unwrap()));
            cells.extend(new);
        }
        Ok::<_, ReadError>(())
    };
    for chunk in input.chunks(chunk) {
        pieces.push(chunk);
        while let Some(piece) = pieces.next_piece()? {
            take(piece)?;
        }
    }
    pieces.last().map_or(Ok(()), &mut take)?;
    let (header, reader) = found.ok_or(CsvError::Empty)?;
    let columns =
        if reader.n_columns() == header.names().len() { header.names().to_vec() } else { vec!["x".to_owned()] };
    Ok((Table::new(columns, cells).unwrap(), lines))
}

/// Names, the bits of the numbers, and lines.
type Comparable<'a> = (&'a [String], Vec<u64>, &'a [usize]);

fn comparable(outcome: &Outcome) -> Result<Comparable<'_>, &ReadError> {
    outcome.as_ref().map(|(table, lines)| (table.columns(), bits(table.cells()), &lines[..]))
}

fn bits(cells: &[f64]) -> Vec<u64> {
    cells.iter().map(|cell| cell.to_bits()).collect()
}

/// A message is one short line, whatever the text.
fn check_message(message: &str) {
    assert!(!message.is_empty() && message.len() < 1_000 && !message.contains(char::is_control), "{message:?}");
}

fn check_table(input: &[u8], table: &Table, lines: &[usize]) {
    let text = std::str::from_utf8(input).unwrap();
    assert_eq!(table::read(text).as_ref(), Ok(table));
    let names = table.columns();
    assert!(names.iter().all(|name| !name.is_empty() && !name.contains('\0')));
    assert!(table.cells().iter().all(|cell| cell.is_finite()));
    // Rows are found on lines that there are, one below the other.
    let n_lines = text.matches('\n').count() + 1;
    assert_eq!(lines.len(), table.n_rows());
    assert!(lines.is_sorted_by(|a, b| a < b) && lines.iter().all(|line| (2..=n_lines).contains(line)));
    // The columns by their names, in another order, are the same columns.
    let backwards: Vec<String> = names.iter().rev().cloned().collect();
    let (chosen, _) = read(input, 4, |header| Reader::of(header, &backwards)).unwrap();
    assert_eq!(chosen.cells().len(), table.cells().len());
    for (row, same) in chosen.cells().chunks(names.len()).zip(table.cells().chunks(names.len())) {
        assert!(row.iter().rev().map(|cell| cell.to_bits()).eq(same.iter().map(|cell| cell.to_bits())));
    }
    // Where nothing needs a second look, every cell is the number that the standard library takes it for.
    if !text.contains(['"', '\r', ' ', '\t', '\u{feff}']) {
        let rows = text.split('\n').filter(|line| !line.is_empty()).skip(1);
        let numbers = rows.flat_map(|row| row.split(',')).map(|cell| cell.parse::<f64>().unwrap().to_bits());
        assert!(numbers.eq(bits(table.cells())));
    }
    // What was read survives a write and a read, to the last bit.
    let again = [table::print_header(names), table::print_rows(table.cells(), names.len())].concat();
    let (again, _) = read(&again, 11, Reader::of_all).unwrap();
    assert_eq!((again.columns(), bits(again.cells())), (names, bits(table.cells())));
}

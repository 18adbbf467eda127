//! Numbers to CSV: the shortest decimals that read back as the same doubles.

/// Bytes of a number and what follows it, about.
const NUMBER_BYTES: usize = 20;

/// The line with the names of the columns, quoted where they must be.
#[must_use]
pub fn print_header(names: &[String]) -> Vec<u8> {
    let mut line = String::new();
    for (column, name) in names.iter().enumerate() {
        if column > 0 {
            line.push(',');
        }
        let is_plain = !name.contains(['"', ',', '\n', '\r']) && name.trim() == name && !name.starts_with('\u{feff}');
        if is_plain {
            line.push_str(name);
        } else {
            line.push('"');
            line.push_str(&name.replace('"', "\"\""));
            line.push('"');
        }
    }
    line.push('\n');
    line.into_bytes()
}

/// A line for each row of finite numbers, row-major.
#[must_use]
pub fn print_rows(cells: &[f64], n_columns: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(cells.len() * NUMBER_BYTES);
    let mut number = zmij::Buffer::new();
    for row in cells.chunks_exact(n_columns) {
        for cell in row {
            text.extend_from_slice(number.format_finite(*cell).as_bytes());
            text.push(b',');
        }
        text.pop();
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Table, read};
    use super::*;

    proptest! {
        #[test]
        fn a_table_is_read_back_from_its_csv(
            names in prop::collection::hash_set("[a-c \",\\n\\r\u{feff}é]{0,3}[a-z]", 1..5),
            bits in prop::collection::vec(any::<u64>(), 1..40),
        ) {
            let names: Vec<String> = names.into_iter().map(|name| name.trim_matches([' ', '\r', '\n']).to_owned()).collect();
            prop_assume!(names.iter().collect::<std::collections::HashSet<_>>().len() == names.len());
            let cells: Vec<f64> = bits.into_iter().map(f64::from_bits).filter(|cell| cell.is_finite()).collect();
            let cells = cells[..cells.len() / names.len() * names.len()].to_vec();
            let text = [print_header(&names), print_rows(&cells, names.len())].concat();
            let found = read(str::from_utf8(&text).unwrap()).unwrap();
            let expected = Table::new(names, cells).unwrap();
            prop_assert_eq!(found.columns(), expected.columns());
            let bits = |table: &Table| table.cells().iter().map(|cell| cell.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&found), bits(&expected));
        }
    }
}

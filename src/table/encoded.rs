//! Cells as they are stored: packed where that saves a quarter of their bytes, else as doubles.

use super::packed::{Packed, count_beside, pack, unpack};

/// Some cells, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    cells: Vec<u8>,
    /// `None`: they are doubles, little-endian.
    others: Option<Vec<u8>>,
}

impl Encoded {
    /// Encodes cells.
    #[must_use]
    pub fn of(cells: &[f64]) -> Self {
        match pack(cells) {
            Some(Packed { cells, others }) => Self { cells, others: Some(others) },
            None => Self::doubles(cells),
        }
    }

    /// Of bytes that were stored; whether they are damaged shows when they are decoded.
    #[must_use]
    pub fn stored(cells: Vec<u8>, others: Option<Vec<u8>>) -> Self {
        Self { cells, others }
    }

    fn doubles(cells: &[f64]) -> Self {
        let mut bytes = vec![0; size_of_val(cells)];
        let (places, _) = bytes.as_chunks_mut();
        places.iter_mut().zip(cells).for_each(|(place, cell)| *place = cell.to_le_bytes());
        Self { cells: bytes, others: None }
    }

    /// The bytes of the cells.
    #[must_use]
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }

    /// The doubles of those that are no short decimals; `None`: all of them are doubles.
    #[must_use]
    pub fn others(&self) -> Option<&[u8]> {
        self.others.as_deref()
    }

    /// The number of cells.
    #[must_use]
    pub fn n_cells(&self) -> usize {
        self.cells.len() / cell_bytes(self.others.is_some())
    }

    /// The cells again; `None` if the bytes are damaged.
    #[must_use]
    pub fn decode(&self) -> Option<Vec<f64>> {
        if let Some(others) = &self.others {
            return unpack(&self.cells, others);
        }
        let (doubles, []) = self.cells.as_chunks() else { return None };
        Some(doubles.iter().copied().map(f64::from_le_bytes).collect())
    }

    /// Takes more cells; where some of them are doubles, all become so. `None` if the bytes are damaged.
    #[must_use]
    pub fn append(&mut self, mut more: Self) -> Option<()> {
        if self.others.is_some() != more.others.is_some() {
            for part in [&mut *self, &mut more] {
                *part = Self::doubles(&part.decode()?);
            }
        }
        self.cells.extend_from_slice(&more.cells);
        if let (Some(own), Some(more)) = (&mut self.others, &more.others) {
            own.extend_from_slice(more);
        }
        Some(())
    }

    /// Keeps `n` cells and returns those behind them, with room for as many as there were.
    #[must_use]
    pub fn split_off(&mut self, n: usize) -> Self {
        let kept = n * cell_bytes(self.others.is_some());
        let mut cells = Vec::with_capacity(self.cells.capacity());
        cells.extend_from_slice(&self.cells[kept..]);
        self.cells.truncate(kept);
        let others = self.others.as_mut().map(|others| {
            let n_beside = if others.is_empty() { 0 } else { count_beside(&cells) };
            others.split_off(others.len() - 8 * n_beside)
        });
        Self { cells, others }
    }
}

/// The bytes of a cell.
#[must_use]
pub fn cell_bytes(is_packed: bool) -> usize {
    if is_packed { 4 } else { 8 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_put_together_and_cut_apart_are_the_cells_that_they_were(
            cells in prop::collection::vec((0..1000, prop::bool::weighted(0.2)), 0..200),
            cuts in prop::collection::vec(0.0..1.0, 3),
        ) {
            let cells: Vec<f64> =
                cells.iter().map(|&(i, is_other)| if is_other { f64::from(i).sqrt() } else { f64::from(i) / 8.0 }).collect();
            let at = |cut: f64, n: usize| (cut * n as f64) as usize;
            let (first, second) = cells.split_at(at(cuts[0], cells.len()));
            let mut whole = Encoded::of(first);
            prop_assert_eq!(whole.append(Encoded::of(second)), Some(()));
            prop_assert_eq!((whole.n_cells(), whole.decode()), (cells.len(), Some(cells.clone())));
            let cut = at(cuts[1], cells.len());
            let rest = whole.split_off(cut);
            prop_assert_eq!((whole.n_cells(), rest.n_cells()), (cut, cells.len() - cut));
            prop_assert_eq!((whole.decode(), rest.decode()), (Some(cells[..cut].to_vec()), Some(cells[cut..].to_vec())));
        }
    }
}

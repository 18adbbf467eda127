//! The rows of a dataset for the engine: what is stored is read chunk by chunk, as often as it is needed, and kept as far as there
//! is room.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::ArrayView2;

use crate::ridge::{Matrix, Rows, RowsError};
use crate::table::Encoded;

/// Bytes of a chunk, about.
const CHUNK_BYTES: usize = 4 << 20;

/// How many rows of so many columns make a chunk of a dataset: whole blocks of the engine, and at least one.
#[must_use]
pub fn rows_per_chunk(n_columns: usize) -> usize {
    let block = Matrix::rows_per_block(n_columns);
    block * (CHUNK_BYTES / 8 / (block * n_columns)).max(1)
}

/// The rows of a dataset whose chunks are stored somewhere. Its blocks are those of a matrix in memory, as far as the chunks
/// are made of them, so that it gives the same bits whatever is kept of it.
pub struct StoredRows<'a> {
    /// Reads a chunk; one at a time, whoever asks.
    read: Mutex<ReadChunk<'a>>,
    /// For each chunk: whoever has it reads and decodes the chunk, while another one is read.
    turns: Vec<Mutex<()>>,
    n_columns: usize,
    n_rows: usize,
    blocks: Vec<Block>,
    kept: Mutex<Kept>,
}

/// Reads the chunk of this number.
type ReadChunk<'a> = Box<dyn FnMut(usize) -> Result<Cow<'a, Encoded>, RowsError> + Send + 'a>;

/// A part of a chunk.
struct Block {
    chunk: usize,
    /// The first of its rows among those of the chunk, and among all.
    first: usize,
    first_of_all: usize,
    n_rows: usize,
}

/// Chunks that have been read.
struct Kept {
    /// For good.
    chunks: Vec<Option<Arc<Vec<f64>>>>,
    /// Cells for which there is room.
    room: usize,
    /// Others, the one that was asked for last at the back: more of its blocks are about to be visited.
    recent: VecDeque<(usize, Arc<Vec<f64>>)>,
    n_recent: usize,
}

impl<'a> StoredRows<'a> {
    /// The rows of chunks with so many cells, which `read` reads. No more than one chunk is held at a time.
    pub fn new(
        n_columns: usize,
        chunk_sizes: &[usize],
        read: impl FnMut(usize) -> Result<Cow<'a, Encoded>, RowsError> + Send + 'a,
    ) -> Self {
        let block = Matrix::rows_per_block(n_columns);
        let mut blocks = Vec::new();
        let mut n_rows = 0;
        for (chunk, n_cells) in chunk_sizes.iter().enumerate() {
            let end = n_cells / n_columns;
            for first in (0..end).step_by(block) {
                let n = block.min(end - first);
                blocks.push(Block { chunk, first, first_of_all: n_rows, n_rows: n });
                n_rows += n;
            }
        }
        let chunks = vec![None; chunk_sizes.len()];
        let kept = Mutex::new(Kept { chunks, room: 0, recent: VecDeque::new(), n_recent: 1 });
        let turns = chunk_sizes.iter().map(|_| Mutex::default()).collect();
        Self { read: Mutex::new(Box::new(read)), turns, n_columns, n_rows, blocks, kept }
    }

    /// The same, but `n_threads` chunks are held at a time, and for good as many as have room in `n_bytes`.
    #[must_use]
    pub fn keeping(self, n_threads: usize, n_bytes: u64) -> Self {
        let mut kept = self.kept();
        kept.room = usize::try_from(n_bytes / 8).unwrap_or(usize::MAX);
        kept.n_recent = n_threads;
        drop(kept);
        self
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cells of a chunk.
    fn chunk(&self, chunk: usize) -> Result<Arc<Vec<f64>>, RowsError> {
        if let Some(cells) = self.kept().find(chunk) {
            return Ok(cells);
        }
        let _turn = self.turns[chunk].lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever had the turn before may have read it.
        if let Some(cells) = self.kept().find(chunk) {
            return Ok(cells);
        }
        let encoded = (self.read.lock().unwrap_or_else(PoisonError::into_inner))(chunk)?;
        let cells = Arc::new(encoded.decode().ok_or("a chunk of the dataset is damaged")?);
        self.kept().keep(chunk, &cells);
        Ok(cells)
    }
}

impl Kept {
    fn find(&mut self, chunk: usize) -> Option<Arc<Vec<f64>>> {
        if let Some(cells) = &self.chunks[chunk] {
            return Some(Arc::clone(cells));
        }
        // Each thread is busy with one of them: the one that was not asked for the longest is done with.
        let place = self.recent.iter().position(|(recent, _)| *recent == chunk)?;
        let found = self.recent.remove(place)?;
        let cells = Arc::clone(&found.1);
        self.recent.push_back(found);
        Some(cells)
    }

    fn keep(&mut self, chunk: usize, cells: &Arc<Vec<f64>>) {
        if let Some(room) = self.room.checked_sub(cells.len()) {
            self.room = room;
            self.chunks[chunk] = Some(Arc::clone(cells));
            return;
        }
        if self.recent.len() >= self.n_recent {
            self.recent.pop_front();
        }
        self.recent.push_back((chunk, Arc::clone(cells)));
    }
}

impl Rows for StoredRows<'_> {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn n_columns(&self) -> usize {
        self.n_columns
    }

    fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn visit_block(&self, block: usize, visit: &mut dyn FnMut(usize, ArrayView2<'_, f64>)) -> Result<(), RowsError> {
        let Block { chunk, first, first_of_all, n_rows } = self.blocks[block];
        let cells = self.chunk(chunk)?;
        let rows = first * self.n_columns..(first + n_rows) * self.n_columns;
        let rows = cells.get(rows).ok_or("a chunk of the dataset lacks cells")?;
        visit(first_of_all, ArrayView2::from_shape((n_rows, self.n_columns), rows)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_is_kept_is_read_once_and_the_blocks_are_those_of_a_matrix() {
        let (n_columns, n_rows) = (3, 400_000);
        let cells: Vec<f64> = (0..n_rows * n_columns).map(|i| i as f64).collect();
        let chunks: Vec<&[f64]> = cells.chunks(rows_per_chunk(n_columns) * n_columns).collect();
        let sizes: Vec<usize> = chunks.iter().map(|chunk| chunk.len()).collect();
        assert!(sizes.len() > 2 && sizes[0] * 8 <= CHUNK_BYTES, "{sizes:?}");
        let matrix = Matrix::new(&cells, n_columns).unwrap();
        for (n_bytes, expected) in
            [(0, 2 * sizes.len()), (sizes[0] as u64 * 8, 2 * sizes.len() - 1), (1 << 40, sizes.len())]
        {
            let n_read = AtomicUsize::new(0);
            let read = |chunk: usize| {
                n_read.fetch_add(1, Ordering::Relaxed);
                Ok(Cow::Owned(Encoded::of(chunks[chunk])))
            };
            let rows = StoredRows::new(n_columns, &sizes, read).keeping(1, n_bytes);
            assert_eq!((rows.n_rows(), rows.n_blocks()), (matrix.n_rows(), matrix.n_blocks()));
            for block in (0..rows.n_blocks()).chain(0..rows.n_blocks()) {
                let mut seen = Vec::new();
                for rows in [&rows as &dyn Rows, &matrix] {
                    rows.visit_block(block, &mut |first, view| seen.push((first, view.to_owned()))).unwrap();
                }
                assert!(seen[0] == seen[1], "block {block}");
            }
            drop(rows);
            assert_eq!(n_read.into_inner(), expected);
        }

        // Of two threads the slower one does not lose its chunk to the faster one.
        let n_read = AtomicUsize::new(0);
        let read = |chunk: usize| {
            n_read.fetch_add(1, Ordering::Relaxed);
            Ok(Cow::Owned(Encoded::of(chunks[chunk])))
        };
        let rows = StoredRows::new(n_columns, &sizes, read).keeping(2, 0);
        let last = rows.n_blocks() - 1;
        for block in 0..last {
            rows.visit_block(last, &mut |_, _| ()).unwrap();
            rows.visit_block(block, &mut |_, _| ()).unwrap();
        }
        drop(rows);
        assert_eq!(n_read.into_inner(), sizes.len());
    }
}

//! Moments of narrow rows in double precision. A row is copied once, less a shift near its cell's mean and with a one
//! behind it, so that a single kernel gives products and sums; what is left of the mean is then taken off the products.

use super::{
    columns::Adjacent,
    double_double::Dd,
    error::RidgeError,
    gather::Source,
    gram::{self, padded},
    moments::Moments,
    simd::{Aligned, kernel, prefetch},
    triangle::Triangle,
};

/// The cell of a row that is in none or has no weight.
const NOWHERE: u32 = u32::MAX;
/// The squared mean may be this share of the mean square, so that subtracting it costs a bit at most; the share in a
/// sample of the rows is known before they are multiplied.
const MOST_MEAN: f64 = 0.5;
const MOST_MEAN_OF_SAMPLE: f64 = 0.25;

/// Rows on their way into the moments of their cells. They are collected until multiplying them pays.
pub(super) struct NarrowCells<'s> {
    source: &'s Source<'s>,
    adjacent: Option<Adjacent>,
    shape: Shape,
    /// The collected rows, shape (cells, capacity, stride).
    rows: Aligned,
    /// Their number, by cell.
    lengths: Vec<u32>,
    /// Their weights, shape (cells, capacity), if there is a weight column.
    weights: Vec<f64>,
    /// What each cell's rows are measured from, shape (cells, stride): its first row, then its mean so far, so that constant
    /// columns vanish exactly. Behind it [`UNSET`] or zero.
    shifts: Aligned,
    moments: Vec<Moments<f64>>,
    /// Of the block of the source that is copied.
    cells: Vec<u32>,
    block_weights: Vec<f64>,
    /// Rows that are not copied from where they are.
    gathered: Vec<f64>,
    scratch: Scratch,
}

/// The buffers' rows: p values, the root of the weight, and padding that may hold anything.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    p: usize,
    stride: usize,
    capacity: usize,
}

const UNSET: f64 = 1.0;

struct Scratch {
    /// Products and sums, shape (stride, stride).
    gram: Aligned,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

/// The length of a buffer's row.
pub(super) fn stride(p: usize) -> usize {
    padded(p + 1)
}

impl<'s> NarrowCells<'s> {
    /// `capacity`: how many rows of a cell are collected.
    pub(super) fn new(source: &'s Source<'s>, n_cells: usize, capacity: usize) -> Self {
        let (p, stride) = (source.p(), stride(source.p()));
        let mut shifts = Aligned::zeros(n_cells * stride);
        shifts.chunks_exact_mut(stride).for_each(|shift| shift[p] = UNSET);
        let n_weights = if source.columns.weight.is_some() { n_cells * capacity } else { 0 };
        Self {
            source,
            adjacent: if source.is_scaled() { None } else { source.columns.all_adjacent() },
            shape: Shape { p, stride, capacity },
            rows: Aligned::zeros(n_cells * capacity * stride),
            lengths: vec![0; n_cells],
            weights: vec![0.0; n_weights],
            shifts,
            moments: vec![Moments::empty(0); n_cells],
            cells: Vec::new(),
            block_weights: Vec::new(),
            gathered: Vec::new(),
            scratch: Scratch {
                gram: Aligned::zeros(stride * stride),
                sums: vec![0.0; stride],
                squares: vec![0.0; stride],
            },
        }
    }

    /// Adds the rows of a block of the source; rows in no cell and rows without weight are left out.
    pub(super) fn push_block(
        &mut self,
        block: usize,
        cell_of: &impl Fn(usize) -> Option<usize>,
    ) -> Result<(), RidgeError> {
        let source = self.source;
        let mut push = |first: usize, values: &[f64]| {
            let n_columns = source.rows.n_columns();
            let rows = values.chunks_exact(n_columns);
            let cell = |i: usize| cell_of(first + i).map_or(NOWHERE, |cell| cell as u32);
            self.cells.clear();
            self.block_weights.clear();
            if source.columns.weight.is_some() {
                self.block_weights.extend(rows.map(|row| source.columns.weight(row)));
                let weights = self.block_weights.iter().enumerate();
                self.cells.extend(weights.map(|(i, weight)| if *weight > 0.0 { cell(i) } else { NOWHERE }));
            } else {
                self.cells.extend((0..rows.len()).map(cell));
            }
            self.push_rows(values, n_columns);
        };
        source
            .rows
            .visit_block(block, &mut |first, view| {
                push(first, view.as_standard_layout().as_slice().unwrap_or_default());
            })
            .map_err(RidgeError::Rows)
    }

    fn push_rows(&mut self, values: &[f64], n_columns: usize) {
        let (n, Shape { p, stride, .. }) = (self.cells.len(), self.shape);
        let mut next = 0;
        if let Some(Adjacent { first, .. }) = self.adjacent {
            // Rows are copied in whole vectors; behind the last ones there is nothing to copy.
            let n_whole = (values.len() + n_columns).saturating_sub(first + stride) / n_columns;
            let n_whole = n_whole.min(n);
            self.copy(&values[first..], n_columns, 0, n_whole);
            next = n_whole;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.resize(ROWS_GATHERED * stride, 0.0);
        while next < n {
            let end = (next + ROWS_GATHERED).min(n);
            for (i, row) in (next..end).zip(gathered.chunks_exact_mut(stride)) {
                let from = &values[i * n_columns..(i + 1) * n_columns];
                match self.adjacent {
                    Some(Adjacent { first, .. }) => row[..p].copy_from_slice(&from[first..first + p]),
                    None => self.source.gather(from, &mut row[..p]),
                }
            }
            self.copy(&gathered, stride, next, end);
            next = end;
        }
        self.gathered = gathered;
    }

    /// Copies the rows `from..to` of the block, the first of which is the first of `values`, into the buffers of their cells.
    fn copy(&mut self, values: &[f64], n_columns: usize, from: usize, to: usize) {
        let mut next = from;
        while next < to {
            let weights = if self.weights.is_empty() { &[] } else { &self.block_weights[next..to] };
            next += copy_rows(
                &values[(next - from) * n_columns..],
                n_columns,
                &self.cells[next..to],
                weights,
                self.shape,
                &mut self.shifts,
                &mut self.rows,
                &mut self.lengths,
                &mut self.weights,
            );
            let cell = self.cells[next - 1];
            if cell != NOWHERE && self.lengths[cell as usize] as usize == self.shape.capacity {
                self.flush(cell as usize);
            }
        }
    }

    /// Adds a cell's collected rows to its moments.
    fn flush(&mut self, cell: usize) {
        let (n, Shape { p, stride, capacity }) = (self.lengths[cell] as usize, self.shape);
        if n == 0 {
            return;
        }
        self.lengths[cell] = 0;
        let rows = &mut self.rows[cell * capacity * stride..][..n * stride];
        let shift = &mut self.shifts[cell * stride..(cell + 1) * stride];
        let Scratch { gram, sums, squares } = &mut self.scratch;
        let mut mean: Vec<Dd> = shift[..p].iter().map(|s| Dd::from(*s)).collect();
        // A first row may be far from the mean, and rows may drift.
        sample(if n < 64 { 1 } else { 8 }, rows, p, sums, squares);
        let is_off = |most: f64, sums: &[f64], square: &dyn Fn(usize) -> f64| {
            (0..p).any(|j| sums[j] * sums[j] > most * square(j) * sums[p])
        };
        if is_off(MOST_MEAN_OF_SAMPLE, sums, &|j| squares[j]) {
            recentre(rows, p, sums, &mut mean);
        }
        gram::add_gram(p + 1, rows, gram);
        (0..=p).for_each(|j| sums[j] = gram[j * stride + p]);
        if is_off(MOST_MEAN, sums, &|j| gram[j * stride + j]) {
            recentre(rows, p, sums, &mut mean);
            gram.fill(0.0);
            gram::add_gram(p + 1, rows, gram);
            (0..=p).for_each(|j| sums[j] = gram[j * stride + p]);
        }
        let weight = if self.weights.is_empty() {
            Dd::from(n as f64)
        } else {
            self.weights[cell * capacity..][..n].iter().fold(Dd::ZERO, |sum, w| sum + Dd::from(*w))
        };
        let scale = 1.0 / weight.value();
        let offset = &mut squares[..p];
        for j in 0..p {
            offset[j] = sums[j] * scale;
            mean[j] = mean[j] + Dd::from(offset[j]);
        }
        self.moments[cell].add(weight, mean, |m| subtract_mean(gram, weight.value(), offset, m));
        gram.fill(0.0);
        shift.iter_mut().zip(&self.moments[cell].mean).for_each(|(shift, mean)| *shift = mean.value());
    }

    pub(super) fn finish(mut self) -> Vec<Moments<f64>> {
        (0..self.lengths.len()).for_each(|cell| self.flush(cell));
        match &self.adjacent {
            Some(Adjacent { places, .. }) => self.moments.iter().map(|moments| moments.permuted(places)).collect(),
            None => self.moments,
        }
    }
}

/// Rows that are gathered at once.
const ROWS_GATHERED: usize = 128;
/// How many rows ahead are fetched.
const AHEAD: usize = 16;

kernel! {
    /// Copies rows, `n_columns` values apart, less their cell's shift and times the root of their weight, until a cell is
    /// full; how many were taken. There are `stride` values from the start of each row on.
    #[expect(clippy::too_many_arguments, reason = "the buffers are borrowed apart")]
    fn copy_rows(
        values: &[f64],
        n_columns: usize,
        cells: &[u32],
        weights: &[f64],
        shape: Shape,
        shifts: &mut [f64],
        rows: &mut [f64],
        lengths: &mut [u32],
        row_weights: &mut [f64]
    ) -> usize {
        let Shape { p, stride, capacity } = shape;
        for (i, cell) in cells.iter().enumerate() {
            prefetch(values, (i + AHEAD) * n_columns, n_columns);
            if *cell == NOWHERE {
                continue;
            }
            let cell = *cell as usize;
            let from = &values[i * n_columns..][..stride];
            let shift = &mut shifts[cell * stride..][..stride];
            if shift[p] != 0.0 {
                shift[..p].copy_from_slice(&from[..p]);
                shift[p] = 0.0;
            }
            let place = cell * capacity + lengths[cell] as usize;
            let row = &mut rows[place * stride..][..stride];
            let vectors = row.as_chunks_mut::<8>().0.iter_mut().zip(from.as_chunks::<8>().0).zip(shift.as_chunks::<8>().0);
            if weights.is_empty() {
                for ((row, from), shift) in vectors {
                    for l in 0..8 {
                        row[l] = from[l] - shift[l];
                    }
                }
                row[p] = 1.0;
            } else {
                let root = weights[i].sqrt();
                for ((row, from), shift) in vectors {
                    for l in 0..8 {
                        row[l] = (from[l] - shift[l]) * root;
                    }
                }
                row[p] = root;
                row_weights[place] = weights[i];
            }
            lengths[cell] += 1;
            if lengths[cell] as usize == capacity {
                return i + 1;
            }
        }
        cells.len()
    }
}

kernel! {
    /// Sums, with the weight behind them, and sums of squares of every so-manieth row.
    fn sample(every: usize, rows: &[f64], p: usize, sums: &mut [f64], squares: &mut [f64]) {
        let stride = sums.len();
        sums.fill(0.0);
        squares.fill(0.0);
        for row in rows.chunks_exact(stride).step_by(every) {
            let root = row[p];
            for ((x, sum), square) in row.iter().zip(&mut *sums).zip(&mut *squares) {
                *sum += root * x;
                *square += x * x;
            }
        }
    }
}

/// Measures rows from another mean, as the sums say.
fn recentre(rows: &mut [f64], p: usize, sums: &mut [f64], mean: &mut [Dd]) {
    let weight = sums[p];
    for (sum, mean) in sums[..p].iter_mut().zip(mean) {
        *sum /= weight;
        *mean = *mean + Dd::from(*sum);
    }
    sums[p..].fill(0.0);
    subtract(sums, p, rows);
}

kernel! {
    /// `z -= root offset` for rows z.
    fn subtract(offset: &[f64], p: usize, rows: &mut [f64]) {
        for row in rows.chunks_exact_mut(offset.len()) {
            let root = row[p];
            row.iter_mut().zip(offset).for_each(|(z, offset)| *z -= root * offset);
        }
    }
}

/// `m += gram - weight offset offsetᵀ`.
fn subtract_mean(gram: &[f64], weight: f64, offset: &[f64], m: &mut Triangle<f64>) {
    for (i, (row, gram)) in m.rows_mut().zip(gram.chunks_exact(padded(offset.len() + 1))).enumerate() {
        subtract_products(&gram[i..], weight * offset[i], &offset[i..], row);
    }
}

kernel! {
    /// `m += products - left right`.
    fn subtract_products(products: &[f64], left: f64, right: &[f64], m: &mut [f64]) {
        for ((m, product), right) in m.iter_mut().zip(products).zip(right) {
            *m += product - left * right;
        }
    }
}

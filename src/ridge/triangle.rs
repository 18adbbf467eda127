//! The upper triangle of a symmetric matrix without the room of the lower one: half of the memory of a matrix.

/// The entries (i, j), `j >= i`, of a symmetric (n, n) matrix, row after row.
#[derive(Debug, Clone, Default)]
pub(super) struct Triangle<T> {
    n: usize,
    values: Vec<T>,
}

impl<T: Copy> Triangle<T> {
    pub(super) fn filled(n: usize, value: T) -> Self {
        Self { n, values: vec![value; n * (n + 1) / 2] }
    }

    /// The upper triangle of a row-major square, in its place.
    pub(super) fn of_square(n: usize, mut square: Vec<T>) -> Self {
        let mut end = 0;
        for i in 0..n {
            square.copy_within(i * n + i..(i + 1) * n, end);
            end += n - i;
        }
        square.truncate(end);
        square.shrink_to_fit();
        Self { n, values: square }
    }

    fn start(&self, i: usize) -> usize {
        // Rows before it have n, n - 1, .. entries.
        i * (2 * self.n + 1 - i) / 2
    }

    /// The entries (i, i..n).
    pub(super) fn row(&self, i: usize) -> &[T] {
        &self.values[self.start(i)..][..self.n - i]
    }

    /// All rows, from the diagonal on.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        let (n, mut rest) = (self.n, self.values.as_mut_slice());
        (0..n).map(move |i| {
            let (row, others) = std::mem::take(&mut rest).split_at_mut(n - i);
            rest = others;
            row
        })
    }

    /// The entry (i, j).
    pub(super) fn at(&self, i: usize, j: usize) -> T {
        let (i, j) = (i.min(j), i.max(j));
        self.values[self.start(i) + j - i]
    }

    /// The entry (i, i).
    pub(super) fn diagonal(&self, i: usize) -> T {
        self.values[self.start(i)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_keeps_its_upper_triangle() {
        let mut triangle = Triangle::of_square(3, vec![1, 2, 3, 0, 5, 6, 0, 0, 9]);
        assert_eq!([triangle.row(0), triangle.row(1), triangle.row(2)], [&[1, 2, 3][..], &[5, 6], &[9]]);
        assert_eq!([triangle.at(0, 2), triangle.at(2, 0), triangle.at(1, 1), triangle.diagonal(2)], [3, 3, 5, 9]);
        triangle.rows_mut().for_each(|row| row[0] = 0);
        assert_eq!(triangle.values, [0, 2, 3, 0, 6, 0]);
    }
}

//! Pivoted Cholesky in doubled precision: solves what doubles cannot, and finds minimum-norm solutions of deficient
//! systems.

use super::{
    dd_loops,
    double_double::{Dd, exponent},
    error::RidgeError,
    normal::Equilibrated,
    run::Run,
};

/// `Pᵀ A P = [R11 R12]ᵀ [R11 R12]` of an equilibrated A = D (G + Λ) D, in doubled precision.
///
/// Columns whose pivot falls below `tolerance` times their diagonal, or into its own rounding errors, depend on the columns
/// chosen before them: dead. Among the others the one that is largest for its penalty is next, so that the basic solution is
/// near the one of minimum norm.
pub(super) struct PivotedFactor {
    d: usize,
    /// Rows of R, each of length d in the columns' given order; rank of them.
    r: Vec<Dd>,
    /// The chosen columns, in order.
    pub(super) basis: Vec<usize>,
    dead: Vec<usize>,
    /// See [`Equilibrated`].
    shift: Vec<i32>,
    metric: Vec<(Dd, i32)>,
    null_space: Option<NullSpace>,
}

/// Directions that A does not see, one for each dead column, in penalised coefficients, each of about unit size.
struct NullSpace {
    vectors: Vec<Vec<Dd>>,
    gram: Box<PivotedFactor>,
}

impl PivotedFactor {
    pub(super) fn new(equations: Equilibrated<Dd>, tolerance: f64, run: &Run<'_>) -> Result<Self, RidgeError> {
        let Equilibrated { d, mut a, shift, metric, .. } = equations;
        let diagonal: Vec<Dd> = (0..d).map(|j| a[j * d + j]).collect();
        let mut alive: Vec<usize> = (0..d).filter(|j| diagonal[*j].hi > 0.0).collect();
        let mut dead: Vec<usize> = (0..d).filter(|j| !(diagonal[*j].hi > 0.0)).collect();
        let (mut r, mut basis): (Vec<Dd>, Vec<usize>) = (Vec::new(), Vec::new());
        // The remaining matrix is kept in place, upper triangle in the given order of the columns.
        loop {
            let depends = |j: &usize| !(a[j * d + j].hi > tolerance * diagonal[*j].hi);
            dead.extend(alive.iter().filter(|j| depends(j)));
            alive.retain(|j| !depends(j));
            let size = |j: usize| a[j * d + j].hi.log2() - 2.0 * (metric[j].0.hi.log2() + f64::from(metric[j].1));
            let Some(at) = (0..alive.len()).max_by(|i, j| size(alive[*i]).total_cmp(&size(alive[*j])).then(j.cmp(i)))
            else {
                break;
            };
            run.check()?;
            let pivot = alive.remove(at);
            let left = a[pivot * d + pivot].hi / diagonal[pivot].hi;
            if left < SUSPICIOUS && left <= pivot_error(d, &r, &basis, &diagonal, pivot) {
                dead.push(pivot);
                continue;
            }
            let root = a[pivot * d + pivot].sqrt();
            let mut row = vec![Dd::ZERO; d];
            for &j in alive.iter().chain(&dead) {
                row[j] = a[pivot.min(j) * d + pivot.max(j)] / root;
            }
            // A_ij -= r_i r_j; entries of columns already chosen have r = 0 and stay.
            for i in 0..d {
                if row[i].hi != 0.0 {
                    dd_loops::subtract_scaled(row[i], &row[i..], &mut a[i * d + i..(i + 1) * d]);
                }
            }
            row[pivot] = root;
            r.extend_from_slice(&row);
            basis.push(pivot);
        }
        let mut factor = Self { d, r, basis, dead, shift, metric, null_space: None };
        if !factor.dead.is_empty() {
            factor.null_space = Some(factor.find_null_space(run)?);
        }
        Ok(factor)
    }

    pub(super) fn rank(&self) -> usize {
        self.basis.len()
    }

    pub(super) fn is_deficient(&self) -> bool {
        !self.dead.is_empty()
    }

    fn row(&self, k: usize) -> &[Dd] {
        &self.r[k * self.d..(k + 1) * self.d]
    }

    /// R as a square matrix (rank, rank), rounded, columns in pivot order.
    pub(super) fn rounded(&self) -> Vec<f64> {
        (0..self.rank()).flat_map(|k| self.basis.iter().map(move |j| self.row(k)[*j].value())).collect()
    }

    /// `R11⁻ᵀ b`, of length rank, for b in the given order of the columns.
    pub(super) fn forward(&self, b: &[Dd]) -> Vec<Dd> {
        let mut b = b.to_vec();
        let mut z = Vec::with_capacity(self.rank());
        for (k, &pivot) in self.basis.iter().enumerate() {
            let value = b[pivot] / self.row(k)[pivot];
            dd_loops::subtract_scaled(value, self.row(k), &mut b);
            z.push(value);
        }
        z
    }

    /// `R11⁻¹ z` in the given order of the columns; zero for dead columns.
    pub(super) fn backward(&self, z: &[Dd]) -> Vec<Dd> {
        let mut w = vec![Dd::ZERO; self.d];
        for (k, &pivot) in self.basis.iter().enumerate().rev() {
            let row = self.row(k);
            let known = self.basis[k + 1..].iter().fold(Dd::ZERO, |sum, &j| sum + row[j] * w[j]);
            w[pivot] = (z[k] - known) / row[pivot];
        }
        w
    }

    /// The coefficients in the columns' units that solve `(G + Λ) w = g`, b = D g; of minimum penalised norm if
    /// there are many.
    pub(super) fn solve(&self, b: &[Dd]) -> Vec<Dd> {
        let mut w = self.backward(&self.forward(b));
        self.project_equilibrated(&mut w);
        w.iter_mut().zip(&self.shift).for_each(|(w, f)| *w = w.scaled(-f));
        w
    }

    /// `A⁺ b` for a b in the range of `A` or not, in equilibrated coefficients: with A = Rᵀ R,
    /// `A⁺ = Rᵀ (R Rᵀ)⁻¹ (R Rᵀ)⁻¹ R`; `A⁻¹ b` if A has full rank.
    pub(super) fn pseudo_solve(&self, b: &[Dd], run: &Run<'_>) -> Result<Vec<Dd>, RidgeError> {
        if !self.is_deficient() {
            return Ok(self.backward(&self.forward(b)));
        }
        let rank = self.rank();
        let mut gram = vec![Dd::ZERO; rank * rank];
        for i in 0..rank {
            for j in i..rank {
                gram[i * rank + j] = dot(self.row(i), self.row(j));
            }
        }
        let gram = Self::new(Equilibrated::plain(rank, gram), 1e-30, run)?;
        let right: Vec<Dd> = (0..rank).map(|k| dot(self.row(k), b)).collect();
        let inner = gram.solve(&gram.solve(&right));
        let mut x = vec![Dd::ZERO; self.d];
        for (k, value) in inner.iter().enumerate() {
            dd_loops::subtract_scaled(-*value, self.row(k), &mut x);
        }
        Ok(x)
    }

    /// Takes away the component of w (in the columns' units) in the null space, orthogonal in the penalised norm.
    pub(super) fn project(&self, w: &mut [Dd]) {
        w.iter_mut().zip(&self.shift).for_each(|(w, f)| *w = w.scaled(*f));
        self.project_equilibrated(w);
        w.iter_mut().zip(&self.shift).for_each(|(w, f)| *w = w.scaled(-f));
    }

    fn project_equilibrated(&self, w: &mut [Dd]) {
        let Some(NullSpace { vectors, gram }) = &self.null_space else {
            return;
        };
        let Some(mut penalised) = self.penalised(w) else {
            return;
        };
        let largest = penalised.1;
        for _ in 0..2 {
            let parts: Vec<Dd> = vectors.iter().map(|n| dot(n, &penalised.0)).collect();
            let v = gram.solve(&parts);
            for (n, v) in vectors.iter().zip(v) {
                dd_loops::subtract_scaled(v, n, &mut penalised.0);
            }
        }
        for ((w, penalised), (mantissa, e)) in w.iter_mut().zip(penalised.0).zip(&self.metric) {
            *w = (penalised / *mantissa).scaled(largest - e);
        }
    }

    /// Equilibrated coefficients as those whose norm is penalised, divided by `2^largest` so that none is large.
    fn penalised(&self, w: &[Dd]) -> Option<(Vec<Dd>, i32)> {
        let sizes = w.iter().zip(&self.metric).filter(|(w, _)| w.hi != 0.0).map(|(w, (_, e))| exponent(w.hi) + e);
        let largest = sizes.max()?;
        let penalised =
            w.iter().zip(&self.metric).map(|(w, (mantissa, e))| (*w * *mantissa).scaled(e - largest)).collect();
        Some((penalised, largest))
    }

    /// `N = [-R11⁻¹ R12; I]`, a vector for each dead column.
    fn find_null_space(&self, run: &Run<'_>) -> Result<NullSpace, RidgeError> {
        let mut vectors = Vec::with_capacity(self.dead.len());
        for &dead in &self.dead {
            let column: Vec<Dd> = (0..self.rank()).map(|k| -self.row(k)[dead]).collect();
            let mut n = self.backward(&column);
            n[dead] = Dd::from(1.0);
            vectors.extend(self.penalised(&n).map(|(n, _)| n));
            run.check()?;
        }
        let q = vectors.len();
        let mut a = vec![Dd::ZERO; q * q];
        for i in 0..q {
            for j in i..q {
                a[i * q + j] = dot(&vectors[i], &vectors[j]);
            }
        }
        let gram = Box::new(Self::new(Equilibrated::plain(q, a), 1e-28, run)?);
        Ok(NullSpace { vectors, gram })
    }
}

/// Pivots above this share of their diagonal have digits whatever the rounding errors.
const SUSPICIOUS: f64 = 1e-16;

/// A bound for the rounding error of the pivot of column j, as a share of its diagonal.
///
/// The computed factor is the exact one of A + E with `|E_ik| <= n u (A_ii A_kk)^(1/2)` (Higham 2002, theorem 10.3), and the
/// pivot of A + E is that of A plus `(x, -1)ᵀ E (x, -1)`, `x = R11⁻¹ r_j` the coefficients of column j on the basis.
fn pivot_error(d: usize, r: &[Dd], basis: &[usize], diagonal: &[Dd], j: usize) -> f64 {
    /// Of one addition and one multiplication in doubled precision.
    const ROUNDOFF: f64 = 8.0 * f64::EPSILON * f64::EPSILON;
    let mut x = vec![0.0; d];
    let mut length = 1.0;
    for (k, &pivot) in basis.iter().enumerate().rev() {
        let row = &r[k * d..(k + 1) * d];
        let known: f64 = basis[k + 1..].iter().map(|&i| row[i].hi * x[i]).sum();
        x[pivot] = (row[j].hi - known) / row[pivot].hi;
        length += x[pivot].abs() * (diagonal[pivot].hi / diagonal[j].hi).sqrt();
    }
    (basis.len() + 1) as f64 * ROUNDOFF * length * length
}

fn dot(a: &[Dd], b: &[Dd]) -> Dd {
    a.iter().zip(b).fold(Dd::ZERO, |sum, (a, b)| sum + *a * *b)
}

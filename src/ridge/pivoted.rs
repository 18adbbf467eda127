//! Pivoted Cholesky in doubled precision: solves what doubles cannot, and finds minimum-norm solutions of deficient
//! systems.

use super::{
    double_double::{self, Dd, exponent},
    error::RidgeError,
    normal::Equilibrated,
    run::Run,
};

/// `Pᵀ A P = [R11 R12]ᵀ [R11 R12]` of an equilibrated A = D (G + Λ) D, in doubled precision.
///
/// Columns whose pivot falls below `tolerance` times their diagonal depend on the columns chosen before them: dead. Among
/// the others the one that is largest in its own units is next, so that the basic solution is near the one of minimum norm.
pub(super) struct PivotedFactor {
    d: usize,
    /// Rows of R, each of length d in the columns' given order; rank of them.
    r: Vec<Dd>,
    /// The chosen columns, in order.
    pub(super) basis: Vec<usize>,
    dead: Vec<usize>,
    /// Columns of equilibrated coefficients are `2^-shift` of those in the columns' units..
    shift: Vec<i32>,
    /// ..and these `2^-unit` of the original ones.
    units: Vec<i32>,
    null_space: Option<NullSpace>,
}

/// Directions that A does not see, in original units: `n[j]` is a dead column's, each scaled to about unit size.
struct NullSpace {
    vectors: Vec<Vec<Dd>>,
    gram: Box<PivotedFactor>,
}

impl PivotedFactor {
    pub(super) fn new(
        equations: Equilibrated<Dd>,
        units: &[i32],
        tolerance: f64,
        run: &Run<'_>,
    ) -> Result<Self, RidgeError> {
        let Equilibrated { d, mut a, shift, .. } = equations;
        let diagonal: Vec<Dd> = (0..d).map(|j| a[j * d + j]).collect();
        let mut alive: Vec<usize> = (0..d).filter(|j| diagonal[*j].hi > 0.0).collect();
        let mut dead: Vec<usize> = (0..d).filter(|j| !(diagonal[*j].hi > 0.0)).collect();
        let (mut r, mut basis) = (Vec::new(), Vec::new());
        // The remaining matrix is kept in place, upper triangle in the given order of the columns.
        loop {
            let depends = |j: &usize| !(a[j * d + j].hi > tolerance * diagonal[*j].hi);
            dead.extend(alive.iter().filter(|j| depends(j)));
            alive.retain(|j| !depends(j));
            let size = |j: usize| f64::from(2 * (shift[j] + units[j])) + a[j * d + j].hi.log2();
            let Some(at) = (0..alive.len()).max_by(|i, j| size(alive[*i]).total_cmp(&size(alive[*j])).then(j.cmp(i)))
            else {
                break;
            };
            run.check()?;
            let pivot = alive.remove(at);
            let root = a[pivot * d + pivot].sqrt();
            let mut row = vec![Dd::ZERO; d];
            for &j in alive.iter().chain(&dead) {
                row[j] = a[pivot.min(j) * d + pivot.max(j)] / root;
            }
            // A_ij -= r_i r_j; entries of columns already chosen have r = 0 and stay.
            for i in 0..d {
                if row[i].hi != 0.0 {
                    double_double::subtract_scaled(row[i], &row[i..], &mut a[i * d + i..(i + 1) * d]);
                }
            }
            row[pivot] = root;
            r.extend_from_slice(&row);
            basis.push(pivot);
        }
        let mut factor = Self { d, r, basis, dead, shift, units: units[..d].to_vec(), null_space: None };
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
            double_double::subtract_scaled(value, self.row(k), &mut b);
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

    /// The coefficients in the columns' units that solve `(G + Λ) w = g`, b = D g; of minimum norm in original units if
    /// there are many.
    pub(super) fn solve(&self, b: &[Dd]) -> Vec<Dd> {
        let mut w = self.backward(&self.forward(b));
        w.iter_mut().zip(&self.shift).for_each(|(w, f)| *w = w.scaled(-f));
        self.project(&mut w);
        w
    }

    /// Takes away the component of w (in the columns' units) in the null space, orthogonal in original units.
    pub(super) fn project(&self, w: &mut [Dd]) {
        let Some(NullSpace { vectors, gram }) = &self.null_space else { return };
        // To original units, as far as one common factor allows.
        let largest = w.iter().zip(&self.units).filter(|(w, _)| w.hi != 0.0).map(|(w, u)| exponent(w.hi) - u).max();
        let Some(largest) = largest else { return };
        let mut original: Vec<Dd> = w.iter().zip(&self.units).map(|(w, u)| w.scaled(-u - largest)).collect();
        for _ in 0..2 {
            let parts: Vec<Dd> = vectors.iter().map(|n| dot(n, &original)).collect();
            let v = gram.solve(&parts);
            for (n, v) in vectors.iter().zip(v) {
                double_double::subtract_scaled(v, n, &mut original);
            }
        }
        for ((w, original), u) in w.iter_mut().zip(original).zip(&self.units) {
            *w = original.scaled(u + largest);
        }
    }

    /// `N = [-R11⁻¹ R12; I]`, a vector for each dead column, in original units.
    fn find_null_space(&self, run: &Run<'_>) -> Result<NullSpace, RidgeError> {
        let mut vectors = Vec::with_capacity(self.dead.len());
        for &dead in &self.dead {
            let column: Vec<Dd> = (0..self.rank()).map(|k| -self.row(k)[dead]).collect();
            let mut n = self.backward(&column);
            n[dead] = Dd::from(1.0);
            let unit = |j: usize| self.shift[j] + self.units[j];
            let sizes = n.iter().enumerate().filter(|(_, n)| n.hi != 0.0).map(|(j, n)| exponent(n.hi) - unit(j));
            let largest = sizes.max().unwrap_or(0);
            n.iter_mut().enumerate().for_each(|(j, n)| *n = n.scaled(-unit(j) - largest));
            vectors.push(n);
            run.check()?;
        }
        let q = vectors.len();
        let mut a = vec![Dd::ZERO; q * q];
        for i in 0..q {
            for j in i..q {
                a[i * q + j] = dot(&vectors[i], &vectors[j]);
            }
        }
        let zeros = vec![0; q];
        let equations = Equilibrated { d: q, a, b: Vec::new(), ridge: Vec::new(), shift: zeros.clone() };
        let gram = Box::new(Self::new(equations, &zeros, 1e-28, run)?);
        Ok(NullSpace { vectors, gram })
    }
}

fn dot(a: &[Dd], b: &[Dd]) -> Dd {
    a.iter().zip(b).fold(Dd::ZERO, |sum, (a, b)| sum + *a * *b)
}

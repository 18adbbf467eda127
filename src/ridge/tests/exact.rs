//! Ridge regression and its cross-validation in exact rational arithmetic, straight from the definitions: the naive
//! implementation that the engine is measured against.

use super::super::{Folds, Loss, Params};
use num_rational::BigRational;
use num_traits::{FromPrimitive, ToPrimitive, Zero};

pub(super) type Q = BigRational;

pub(super) fn q(x: f64) -> Q {
    Q::from_f64(x).unwrap()
}

/// Nearest double, also of a quotient of huge integers.
pub(super) fn f(x: &Q) -> f64 {
    x.to_f64().unwrap()
}

/// One training problem: rows of features, targets, weights.
pub(super) struct Problem {
    pub(super) x: Vec<Vec<Q>>,
    pub(super) y: Vec<Q>,
    pub(super) weights: Vec<Q>,
}

pub(super) struct Model {
    pub(super) w: Vec<Q>,
    pub(super) b: Q,
}

fn dot(a: &[Q], b: &[Q]) -> Q {
    a.iter().zip(b).fold(Q::zero(), |sum, (a, b)| sum + a * b)
}

/// Row-reduced echelon form; the non-zero rows.
fn reduced(mut m: Vec<Vec<Q>>) -> (Vec<Vec<Q>>, Vec<usize>) {
    let (mut rank, mut pivots) = (0, Vec::new());
    let columns = m.first().map_or(0, Vec::len);
    for column in 0..columns {
        let Some(at) = (rank..m.len()).find(|i| !m[*i][column].is_zero()) else {
            continue;
        };
        m.swap(rank, at);
        let pivot = m[rank][column].clone();
        m[rank].iter_mut().for_each(|v| *v /= &pivot);
        let row = m[rank].clone();
        for (i, other) in m.iter_mut().enumerate() {
            if i != rank && !other[column].is_zero() {
                let factor = other[column].clone();
                other.iter_mut().zip(&row).for_each(|(o, r)| *o -= &factor * r);
            }
        }
        pivots.push(column);
        rank += 1;
    }
    m.truncate(rank);
    (m, pivots)
}

/// The solution of a regular system.
fn solve(a: Vec<Vec<Q>>, b: Vec<Q>) -> Vec<Q> {
    let n = b.len();
    let augmented = a
        .into_iter()
        .zip(b)
        .map(|(mut row, b)| {
            row.push(b);
            row
        })
        .collect();
    let (rows, pivots) = reduced(augmented);
    assert_eq!(pivots, (0..n).collect::<Vec<_>>(), "the system is singular");
    rows.into_iter().map(|row| row[n].clone()).collect()
}

/// The minimiser of the objective; at penalty 0 the limit from above. Columns that standardisation cannot scale get 0.
pub(super) fn fit(problem: &Problem, params: &Params, penalty: f64) -> Model {
    let d = problem.x[0].len();
    let total: Q = problem.weights.iter().fold(Q::zero(), |sum, w| sum + w);
    let mean = |values: &dyn Fn(usize) -> Q| {
        (0..problem.y.len()).fold(Q::zero(), |sum, i| sum + &problem.weights[i] * values(i)) / &total
    };
    let means: Vec<Q> = (0..d).map(|j| mean(&|i| problem.x[i][j].clone())).collect();
    let mean_y = mean(&|i| problem.y[i].clone());
    let zero = vec![Q::zero(); d];
    let (centre, centre_y) = if params.fit_intercept { (means.clone(), mean_y) } else { (zero, Q::zero()) };
    let mut g = vec![vec![Q::zero(); d]; d];
    let mut right = vec![Q::zero(); d];
    let mut variance = vec![Q::zero(); d];
    for i in 0..problem.y.len() {
        let x: Vec<Q> = problem.x[i].iter().zip(&centre).map(|(x, c)| x - c).collect();
        for j in 0..d {
            let weighted = &problem.weights[i] * &x[j];
            for k in 0..d {
                g[j][k] += &weighted * &x[k];
            }
            right[j] += &weighted * (&problem.y[i] - &centre_y);
            let deviation = &problem.x[i][j] - &means[j];
            variance[j] += &problem.weights[i] * &deviation * &deviation / &total;
        }
    }
    let alpha = match params.loss {
        Loss::Mean => q(penalty) * &total,
        Loss::Sum => q(penalty),
    };
    let mut a = g.clone();
    for j in 0..d {
        a[j][j] += if params.standardize { &alpha * &variance[j] } else { alpha.clone() };
    }
    // Coefficients of least norm are V⁻¹ Cᵀ z, V the norm and the rows of C a basis of A's: C A V⁻¹ Cᵀ z = C right.
    let norm = |j: usize| {
        if params.standardize { variance[j].clone() } else { q(1.0) }
    };
    for j in 0..d {
        if norm(j).is_zero() {
            (0..d).for_each(|k| (a[j][k], a[k][j]) = (Q::zero(), Q::zero()));
            right[j] = Q::zero();
        }
    }
    let (c, _) = reduced(a.clone());
    let inverse = |j: usize| {
        if norm(j).is_zero() { Q::zero() } else { norm(j).recip() }
    };
    let vc: Vec<Vec<Q>> = c.iter().map(|row| (0..d).map(|j| inverse(j) * &row[j]).collect()).collect();
    let avc: Vec<Vec<Q>> = vc.iter().map(|row| a.iter().map(|a_row| dot(a_row, row)).collect()).collect();
    let cavc = c.iter().map(|row| avc.iter().map(|column| dot(row, column)).collect()).collect();
    let z = solve(cavc, c.iter().map(|row| dot(row, &right)).collect());
    let w: Vec<Q> = (0..d).map(|j| z.iter().zip(&vc).fold(Q::zero(), |sum, (z, row)| sum + z * &row[j])).collect();
    let b = centre_y - dot(&centre, &w);
    Model { w, b }
}

/// Weighted mean squared error of a model.
pub(super) fn mse(problem: &Problem, model: &Model) -> Q {
    let (mut sum, mut total) = (Q::zero(), Q::zero());
    for i in 0..problem.y.len() {
        let error = dot(&problem.x[i], &model.w) + &model.b - &problem.y[i];
        sum += &problem.weights[i] * &error * &error;
        total += &problem.weights[i];
    }
    sum / total
}

/// The rows of a row-major matrix that `keep` says, as a problem.
pub(super) fn problem(values: &[f64], n_columns: usize, params: &Params, keep: impl Fn(usize) -> bool) -> Problem {
    let fold = match params.folds {
        Folds::Column(c) => Some(c),
        Folds::Random { .. } => None,
    };
    let mut problem = Problem { x: Vec::new(), y: Vec::new(), weights: Vec::new() };
    for (i, row) in values.chunks(n_columns).enumerate() {
        let weight = params.weight.map_or(1.0, |c| row[c]);
        if keep(i) && weight > 0.0 {
            let is_feature = |c: &usize| *c != params.target && Some(*c) != params.weight && Some(*c) != fold;
            problem.x.push((0..n_columns).filter(is_feature).map(|c| q(row[c])).collect());
            problem.y.push(q(row[params.target]));
            problem.weights.push(q(weight));
        }
    }
    problem
}

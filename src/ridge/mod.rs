//! The engine: ridge regression and its cross-validation. Pure: rows in, report out, no I/O.
//!
//! This is the plain form of it: one Cholesky factorisation for each fold and penalty.

use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{Array1, Array2, ArrayView2};
use ndarray_linalg::{FactorizeC, SolveC, UPLO};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

pub type RowsError = Box<dyn std::error::Error + Send + Sync>;

/// Where the engine reads its rows.
pub trait Rows: Sync {
    fn n_rows(&self) -> usize;
    fn n_columns(&self) -> usize;
    fn n_blocks(&self) -> usize;
    fn visit_block(&self, block: usize, visit: &mut dyn FnMut(usize, ArrayView2<'_, f64>)) -> Result<(), RowsError>;
}

pub struct Matrix<'a> {
    view: ArrayView2<'a, f64>,
}

impl<'a> Matrix<'a> {
    pub fn new(values: &'a [f64], n_columns: usize) -> Result<Self, RidgeError> {
        let view =
            ArrayView2::from_shape((values.len() / n_columns, n_columns), values).map_err(|_| RidgeError::Overflow)?;
        Ok(Self { view })
    }
}

impl Rows for Matrix<'_> {
    fn n_rows(&self) -> usize {
        self.view.nrows()
    }
    fn n_columns(&self) -> usize {
        self.view.ncols()
    }
    fn n_blocks(&self) -> usize {
        1
    }
    fn visit_block(&self, _: usize, visit: &mut dyn FnMut(usize, ArrayView2<'_, f64>)) -> Result<(), RowsError> {
        visit(0, self.view);
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub struct Params {
    pub target: usize,
    pub weight: Option<usize>,
    pub folds: Folds,
    pub fit_intercept: bool,
    pub loss: Loss,
    pub standardize: bool,
    pub penalties: Option<Vec<f64>>,
}
#[derive(Debug, Clone, PartialEq)]
pub enum Folds {
    Random { n_folds: usize, seed: u64 },
    Column(usize),
}
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    Mean,
    Sum,
}
#[derive(Debug)]
pub struct ValidParams(Params, Vec<usize>);

#[derive(Debug, thiserror::Error)]
pub enum RidgeError {
    #[error("no features")]
    NoFeatures,
    #[error("two roles")]
    ColumnWithTwoRoles { column: usize },
    #[error("folds")]
    TooFewFolds { n_folds: usize },
    #[error("samples")]
    TooFewSamples { n_rows: usize, n_folds: usize },
    #[error("penalty")]
    InvalidPenalty { index: usize, value: f64 },
    #[error("no penalties")]
    NoPenalties,
    #[error("weight")]
    NegativeWeight { row: usize, value: f64 },
    #[error("overflow")]
    Overflow,
    #[error("stopped")]
    Stopped,
}

impl Params {
    pub fn check(self, n_rows: usize, n_columns: usize) -> Result<ValidParams, RidgeError> {
        let fold = if let Folds::Column(column) = self.folds { Some(column) } else { None };
        let roles: Vec<usize> = [Some(self.target), self.weight, fold].into_iter().flatten().collect();
        if let Some((_, &column)) = roles.iter().enumerate().find(|(i, c)| roles[..*i].contains(c)) {
            return Err(RidgeError::ColumnWithTwoRoles { column });
        }
        let features: Vec<usize> = (0..n_columns).filter(|c| !roles.contains(c)).collect();
        if features.is_empty() {
            return Err(RidgeError::NoFeatures);
        }
        if let Folds::Random { n_folds, .. } = self.folds {
            if n_folds < 2 {
                return Err(RidgeError::TooFewFolds { n_folds });
            }
            if n_rows < n_folds {
                return Err(RidgeError::TooFewSamples { n_rows, n_folds });
            }
        }
        if let Some(penalties) = &self.penalties {
            if penalties.is_empty() {
                return Err(RidgeError::NoPenalties);
            }
            if let Some(index) = penalties.iter().position(|p| !(p.is_finite() && *p >= 0.0)) {
                return Err(RidgeError::InvalidPenalty { index, value: penalties[index] });
            }
        }
        Ok(ValidParams(self, features))
    }
}

impl ValidParams {
    pub fn features(&self) -> &[usize] {
        &self.1
    }

    pub fn check_rows(&self, _: &dyn Rows) -> Result<(), RidgeError> {
        Ok(())
    }
}

pub struct Control<'a> {
    pub n_threads: usize,
    pub stop: &'a AtomicBool,
    pub progress: &'a (dyn Fn(f64) + Sync),
}

#[derive(Debug)]
pub struct Report {
    pub intercept: f64,
    pub coef: Vec<f64>,
    pub best: usize,
    pub cv: Vec<PenaltyScore>,
    pub r2: Option<f64>,
    pub rmse: f64,
    pub effective_dof: f64,
    pub condition_number: Option<f64>,
    pub n_folds: usize,
    pub warnings: Vec<Warning>,
}
#[derive(Debug)]
pub struct PenaltyScore {
    pub penalty: f64,
    pub mean_mse: f64,
    pub std_mse: f64,
    pub fold_mse: Vec<f64>,
}
#[derive(Debug)]
pub enum Warning {
    ConstantColumns { columns: Vec<usize> },
}

fn solve(x: &Array2<f64>, y: &Array1<f64>, penalty: f64, params: &Params) -> Result<(f64, Array1<f64>), RidgeError> {
    let l = y.len() as f64;
    let (mx, my) = if params.fit_intercept {
        (x.mean_axis(ndarray::Axis(0)).ok_or(RidgeError::Overflow)?, y.sum() / l)
    } else {
        (Array1::zeros(x.ncols()), 0.0)
    };
    let xc = x - &mx;
    let mut gram = xc.t().dot(&xc);
    let scale = if params.loss == Loss::Mean { l } else { 1.0 };
    for i in 0..gram.nrows() {
        gram[[i, i]] += penalty * scale;
    }
    let factor = gram.factorizec(UPLO::Lower).map_err(|_| RidgeError::Overflow)?;
    let w = factor.solvec(&xc.t().dot(&(y - my))).map_err(|_| RidgeError::Overflow)?;
    Ok((my - mx.dot(&w), w))
}

pub fn cross_validate(rows: &dyn Rows, params: &ValidParams, control: &Control<'_>) -> Result<Report, RidgeError> {
    let mut all = Array2::zeros((0, 0));
    rows.visit_block(0, &mut |_, block| all = block.to_owned()).map_err(|_| RidgeError::Overflow)?;
    let (p, features) = (&params.0, &params.1);
    let x = all.select(ndarray::Axis(1), features);
    let y = all.column(p.target).to_owned();
    let Folds::Random { n_folds, seed } = p.folds else { return Err(RidgeError::Overflow) };
    let mut order: Vec<usize> = (0..y.len()).map(|i| i % n_folds).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    let penalties = p.penalties.clone().unwrap_or_else(|| (-4..=4).map(|e| 10f64.powi(e)).collect());
    let mut cv = Vec::new();
    for (i, &penalty) in penalties.iter().enumerate() {
        let mut fold_mse = Vec::new();
        for fold in 0..n_folds {
            if control.stop.load(Ordering::Relaxed) {
                return Err(RidgeError::Stopped);
            }
            let pick = |held: bool| (0..y.len()).filter(|&r| (order[r] == fold) == held).collect::<Vec<_>>();
            let (train, test) = (pick(false), pick(true));
            let (b, w) = solve(&x.select(ndarray::Axis(0), &train), &y.select(ndarray::Axis(0), &train), penalty, p)?;
            let e = x.select(ndarray::Axis(0), &test).dot(&w) + b - y.select(ndarray::Axis(0), &test);
            fold_mse.push(e.dot(&e) / e.len() as f64);
        }
        (control.progress)((i + 1) as f64 / penalties.len() as f64);
        let mean_mse = fold_mse.iter().sum::<f64>() / n_folds as f64;
        let std_mse = (fold_mse.iter().map(|m| (m - mean_mse).powi(2)).sum::<f64>() / n_folds as f64).sqrt();
        cv.push(PenaltyScore { penalty, mean_mse, std_mse, fold_mse });
    }
    let best = (0..cv.len())
        .min_by(|&a, &b| cv[a].mean_mse.total_cmp(&cv[b].mean_mse).then(cv[b].penalty.total_cmp(&cv[a].penalty)))
        .unwrap_or(0);
    let (intercept, w) = solve(&x, &y, cv[best].penalty, p)?;
    let e = x.dot(&w) + intercept - &y;
    let sse = e.dot(&e);
    let yc = &y - y.sum() / y.len() as f64;
    let sst = yc.dot(&yc);
    Ok(Report {
        intercept,
        coef: w.to_vec(),
        best,
        cv,
        r2: (sst > 0.0).then_some(1.0 - sse / sst),
        rmse: (sse / y.len() as f64).sqrt(),
        effective_dof: 0.0,
        condition_number: None,
        n_folds,
        warnings: Vec::new(),
    })
}

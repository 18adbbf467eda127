//! Ridge regression with cross-validation: rows in, model and table out.
//!
//! The engine minimises `Q(w, b) = loss(w, b) + λ |w|²` over coefficients w and an unpenalised intercept b, where the loss is
//! the mean or the sum of the squared errors ([`Loss`]). It chooses λ by cross-validation and refits on all rows. It does no
//! I/O and holds no state; the rows come through [`Rows`], block by block.

#![expect(
    clippy::float_cmp,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "comparisons with exact zero and one are meant, and negated ones are written so that NaN takes the safe side"
)]

pub mod allocator;
pub mod blas;
mod block;
mod check;
mod columns;
mod dd_loops;
mod double_double;
mod drawing;
mod drawn;
mod dual;
mod dual_fit;
mod dual_hat;
mod dual_system;
mod error;
mod fit;
mod folds;
mod gather;
mod gram;
mod grid;
mod hat;
mod kernel;
mod leave_one_out;
mod memory;
mod moments;
mod narrow;
mod normal;
mod params;
mod pivoted;
mod precision;
mod primal;
mod refine;
mod report;
mod residuals;
mod rows;
mod run;
mod scores;
mod simd;
#[cfg(test)]
mod tests;
mod threads;
mod training;
mod transpose;
mod triangle;
mod tridiagonal;
mod validate;

pub use error::RidgeError;
pub use memory::Needs;
pub use params::{Folds, Loss, Params, ValidParams};
pub use report::{PenaltyScore, Report, Warning};
pub use rows::{Matrix, Rows, RowsError};
pub use run::Control;
pub use threads::{Threads, n_threads};
pub use validate::cross_validate;

//! Small tables of any numbers, with any parameters, through checks and engine.

use std::sync::atomic::AtomicBool;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use ridgeline::ridge::{Control, Matrix, Threads};
use ridgeline::table::Table;
use ridgeline::training::{self, Capacity, CheckError, Loss, Params, Trained, TrainingError};

/// Numbers at which formulas break more often than at others.
const NUMBERS: [f64; 24] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0,
    3.0,
    0.1,
    1.0 + f64::EPSILON,
    1e-8,
    1e8,
    1e15,
    1e16,
    -1e16,
    1e-160,
    1e154,
    1e155,
    -1e300,
    1e300,
    1e-300,
    f64::MIN_POSITIVE,
    5e-324,
    f64::MAX,
    f64::MIN,
    1e-16,
];

/// Trains on the table that the input describes, if it passes the checks at the door.
pub(crate) fn run(input: &[u8]) {
    let Ok((table, params)) = table_and_params(&mut Unstructured::new(input)) else { return };
    if let Err(error) = check(&params, &table) {
        return check_sentence(&error.to_string());
    }
    let rows = Matrix::new(table.cells(), table.n_columns()).unwrap();
    let results = [1, 2].map(|n_threads| {
        let control = Control { threads: &Threads::new(n_threads), stop: &AtomicBool::new(false), progress: &|_| {} };
        training::fit(&params, table.columns(), &rows, &control)
    });
    match &results {
        [Ok(one), Ok(two)] => {
            check_result(&params, &table, one);
            // Every number: the shortest decimals differ where the bits do.
            assert_eq!(format!("{one:?}"), format!("{two:?}"), "the number of threads changes the result");
        }
        [Err(TrainingError::Refused(one)), Err(TrainingError::Refused(two))] => {
            assert_eq!(one, two);
            check_sentence(one);
        }
        other => panic!("{other:?}"),
    }
}

/// The checks that a training passes before it is queued; negative weights are refused while they are read.
fn check(params: &Params, table: &Table) -> std::result::Result<(), CheckError> {
    let weight = training::check_columns(params, table.columns())?;
    let rows = table.cells().chunks_exact(table.n_columns());
    if weight.is_some_and(|column| rows.clone().any(|row| row[column] < 0.0)) {
        return Err(CheckError::Refused("a weight is negative".to_owned()));
    }
    let rows = Matrix::new(table.cells(), table.n_columns()).unwrap();
    training::check_rows(params, table.columns(), &rows, Capacity { memory: None, n_threads: 1 })
}

fn check_sentence(sentence: &str) {
    assert!(!sentence.is_empty() && sentence.len() < 1_000 && !sentence.contains(char::is_control), "{sentence:?}");
}

fn check_result(params: &Params, table: &Table, trained: &Trained) {
    let model = &trained.model;
    assert_eq!(model.coef.len(), model.features.len());
    assert!(model.coef.iter().all(|coef| coef.is_finite()) && model.intercept.is_finite());
    assert!(params.fit_intercept || model.intercept.to_bits() << 1 == 0, "an intercept where there is to be none");
    assert!(trained.metrics.n_rows == table.n_rows() && (2..=table.n_rows()).contains(&trained.metrics.n_folds));
    let lowest = trained.cv_results.iter().map(|score| score.mean_mse).min_by(f64::total_cmp).unwrap();
    assert!(trained.cv_results.iter().all(|score| {
        score.fold_mse.len() == trained.metrics.n_folds
            && score.fold_mse.iter().all(|mse| mse.is_finite() && *mse >= 0.0)
    }));
    let best = trained.cv_results.iter().filter(|score| score.mean_mse.to_bits() == lowest.to_bits());
    let largest = best.map(|score| score.param_value).max_by(f64::total_cmp).unwrap();
    assert_eq!((trained.best.mean_mse, trained.best.param_value), (lowest, largest));
    if let Some(asked) = &params.l2_coef {
        assert!(trained.cv_results.iter().map(|score| score.param_value).eq(asked.iter().copied()));
    }
}

fn table_and_params(u: &mut Unstructured<'_>) -> Result<(Table, Params)> {
    let n_columns = u.int_in_range(2..=8)?;
    let columns: Vec<String> = (0..n_columns).map(|column| format!("c{column}")).collect();
    let column = |u: &mut Unstructured<'_>| {
        Ok(if u.ratio(1, 4)? { Some(columns[u.int_in_range(0..=n_columns - 1)?].clone()) } else { None })
    };
    let (weight_column, fold_column) = (column(u)?, column(u)?);
    let n_penalties = u.int_in_range(0..=4)?;
    let penalties: Vec<f64> = (0..n_penalties).map(|_| number(u)).collect::<Result<_>>()?;
    let params = Params {
        target: columns[0].clone(),
        n_folds: if fold_column.is_some() { None } else { Some(u.int_in_range(2..=20)?) },
        fit_intercept: u.arbitrary()?,
        l2_coef: if penalties.is_empty() { None } else { Some(penalties) },
        seed: if fold_column.is_some() { None } else { Some(u.arbitrary::<u8>()?.into()) },
        loss: if u.arbitrary()? { Loss::Mean } else { Loss::Sum },
        standardize: u.arbitrary()?,
        weight_column,
        fold_column,
    };
    // Rows that the input does not fill repeat what it says, which is how ranks get lost.
    let n_rows = u.int_in_range(2..=24)?;
    let mut cells = Vec::with_capacity(n_rows * n_columns);
    while cells.len() < n_rows * n_columns {
        match if u.is_empty() { None } else { Some(number(u)?) } {
            Some(number) => cells.push(number),
            None if cells.is_empty() => cells.push(1.0),
            None => cells.push(cells[cells.len() % (n_columns * 2 + 1) % cells.len()]),
        }
    }
    let table = Table::new(columns, cells);
    table.map(|table| (table, params)).ok_or(libfuzzer_sys::arbitrary::Error::IncorrectFormat)
}

/// A number of the list, a small whole number, or any finite one.
fn number(u: &mut Unstructured<'_>) -> Result<f64> {
    let choice: u8 = u.arbitrary()?;
    Ok(match choice {
        0..24 => NUMBERS[usize::from(choice)],
        24..224 => f64::from(i16::from(choice) - 124) / 4.0,
        _ => Some(f64::from_bits(u.arbitrary()?)).filter(|number| number.is_finite()).unwrap_or(1.5),
    })
}

//! What the client's commands take.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::options::Options;

/// What the client does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train on a CSV, or on a dataset that was uploaded before
    Train(Box<TrainArguments>),
    /// Predict the rows of a CSV; prints CSV
    Predict(PredictArguments),
    /// List models, the newest first
    Models(ModelsArguments),
    /// Show a model: its state, its cross-validation, its coefficients
    Model(ModelArguments),
    /// Cancel a model that is queued or training
    Cancel(CancelArguments),
    /// Delete a model, or a dataset
    Delete(DeleteArguments),
    /// Write a trained model as a file for use elsewhere
    Export(ExportArguments),
    /// Store a CSV as a dataset, for any number of trainings
    Upload(UploadArguments),
    /// List datasets, the newest first
    Datasets(DatasetsArguments),
    /// Show a dataset: what its columns are like, which models use it
    Dataset(DatasetArguments),
}

impl Command {
    /// Where the service is, and what the output looks like.
    pub(super) fn options(&self) -> &Options {
        match self {
            Self::Train(arguments) => &arguments.options,
            Self::Predict(arguments) => &arguments.options,
            Self::Models(arguments) => &arguments.options,
            Self::Model(arguments) => &arguments.options,
            Self::Cancel(arguments) => &arguments.options,
            Self::Delete(arguments) => &arguments.options,
            Self::Export(arguments) => &arguments.options,
            Self::Upload(arguments) => &arguments.options,
            Self::Datasets(arguments) => &arguments.options,
            Self::Dataset(arguments) => &arguments.options,
        }
    }
}

/// What to train on, and how.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("rows").required(true).args(["file", "dataset"]))]
pub struct TrainArguments {
    /// The CSV, whose first line names the columns; - is standard input, and a name that ends in .gz holds gzip
    #[arg(value_name = "FILE.csv")]
    pub(super) file: Option<PathBuf>,
    /// Train on this dataset instead
    #[arg(long, value_name = "N")]
    pub(super) dataset: Option<i32>,
    /// The column to predict; all others without a role are features
    #[arg(long, value_name = "COLUMN")]
    pub(super) target: String,
    /// The penalties to choose from, separated by commas [default: an automatic grid]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', allow_negative_numbers = true, value_parser = number)]
    pub(super) l2: Option<Vec<f64>>,
    /// Random folds of the cross-validation [default: 5]
    #[arg(long, value_name = "NUMBER", conflicts_with = "fold_column")]
    pub(super) folds: Option<u64>,
    /// What the folds are drawn from [default: drawn at random]
    #[arg(long, value_name = "NUMBER", conflicts_with = "fold_column")]
    pub(super) seed: Option<u64>,
    /// A column whose distinct values are the folds
    #[arg(long, value_name = "COLUMN")]
    pub(super) fold_column: Option<String>,
    /// A column with the rows' weights
    #[arg(long, value_name = "COLUMN")]
    pub(super) weight_column: Option<String>,
    /// Whether the objective has the mean of the squared errors or their sum [default: mean]
    #[arg(long)]
    pub(super) loss: Option<Loss>,
    /// Penalise the coefficients of columns scaled to unit standard deviation
    #[arg(long)]
    pub(super) standardize: bool,
    /// Fit no intercept
    #[arg(long)]
    pub(super) no_intercept: bool,
    /// A name for the model
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Words to find the model by, separated by commas
    #[arg(long, value_name = "WORDS")]
    pub(super) tags: Option<String>,
    /// Wait for the end of the training, and show the model
    #[arg(long)]
    pub(super) wait: bool,
    #[command(flatten)]
    pub(super) options: Options,
}

/// A number of a list, around which there may be blanks.
fn number(text: &str) -> Result<f64, std::num::ParseFloatError> {
    text.trim().parse()
}

/// How squared errors add up.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Loss {
    Mean,
    Sum,
}

/// What to predict from, and for.
#[derive(Debug, Args)]
pub struct PredictArguments {
    /// The model's number
    #[arg(value_name = "N")]
    pub(super) model: i32,
    /// The CSV, with the model's columns in any order; - is standard input, and a name that ends in .gz holds gzip
    #[arg(value_name = "FILE.csv")]
    pub(super) file: PathBuf,
    /// Write to this file, which is there when it is complete, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// Which models to list.
#[derive(Debug, Args)]
pub struct ModelsArguments {
    /// Models at most
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    pub(super) limit: u32,
    /// Go on behind this model
    #[arg(long, value_name = "N")]
    pub(super) after: Option<i32>,
    /// Only models in this state: queued, training, trained, failed, cancelled
    #[arg(long)]
    pub(super) status: Option<String>,
    /// Only models of this name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Only models with this tag, or with all of several, separated by commas
    #[arg(long, value_name = "WORDS")]
    pub(super) tag: Option<String>,
    /// Only models that were trained on this dataset
    #[arg(long, value_name = "N")]
    pub(super) dataset: Option<i32>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// Which model to show.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// The model's number
    #[arg(value_name = "N")]
    pub(super) model: i32,
    /// Wait for the end of its training first
    #[arg(long)]
    pub(super) wait: bool,
    #[command(flatten)]
    pub(super) options: Options,
}

/// Which model to cancel.
#[derive(Debug, Args)]
pub struct CancelArguments {
    /// The model's number
    #[arg(value_name = "N")]
    pub(super) model: i32,
    #[command(flatten)]
    pub(super) options: Options,
}

/// What to delete.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["model", "dataset"]))]
pub struct DeleteArguments {
    /// The model's number
    #[arg(value_name = "N")]
    pub(super) model: Option<i32>,
    /// Delete this dataset; the models that were trained on it stay
    #[arg(long, value_name = "N")]
    pub(super) dataset: Option<i32>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// What to export, and how.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// The model's number
    #[arg(value_name = "N")]
    pub(super) model: i32,
    /// A file for ONNX runtimes, or a Python program without dependencies
    #[arg(long)]
    pub(super) format: Format,
    /// Write to this file, which is there when it is complete, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// What a model is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Onnx,
    Python,
}

/// What to upload.
#[derive(Debug, Args)]
pub struct UploadArguments {
    /// The CSV; - is standard input, and a name that ends in .gz holds gzip
    #[arg(value_name = "FILE.csv")]
    pub(super) file: PathBuf,
    /// A name for the dataset
    #[arg(long)]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// Which datasets to list.
#[derive(Debug, Args)]
pub struct DatasetsArguments {
    /// Datasets at most
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    pub(super) limit: u32,
    /// Go on behind this dataset
    #[arg(long, value_name = "N")]
    pub(super) after: Option<i32>,
    /// Only datasets of this name
    #[arg(long)]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// Which dataset to show.
#[derive(Debug, Args)]
pub struct DatasetArguments {
    /// The dataset's number
    #[arg(value_name = "N")]
    pub(super) dataset: i32,
    #[command(flatten)]
    pub(super) options: Options,
}

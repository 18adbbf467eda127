//! The command-line client: trainings, predictions and datasets of a running service, for people who would rather not write
//! HTTP. It talks to the service alone, and needs neither its configuration nor its database.
//!
//! Results go to standard output, as text or with `--json` as the service sent them; progress, and one sentence for an error,
//! go to standard error. A reader that has had enough, such as `head`, ends it quietly.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | refused, failed, or not to be reached: standard error says why |
//! | 2 | wrong arguments |

mod arguments;
mod duplex;
mod options;
mod output;
mod service;
mod source;
mod text;
mod waiting;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

pub use arguments::Command;
use arguments::{
    DatasetsArguments, DeleteArguments, ExportArguments, Format, Loss, ModelArguments, ModelsArguments,
    PredictArguments, TrainArguments, UploadArguments,
};
use options::Options;
use output::Output;
use service::{Call, Document, Service};
use source::Source;

/// Runs a command, and says on standard error why it did not succeed.
pub fn run(command: &Command) -> ExitCode {
    let out = &mut Output::new(io::stdout().lock());
    let result = execute(command, out).and_then(|()| out.flush().context(UNWRITABLE));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if out.is_closed() => ExitCode::SUCCESS,
        Err(error) => {
            // Where even this cannot be said there is the exit code.
            let _unsaid = writeln!(io::stderr().lock(), "ridgeline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const UNWRITABLE: &str = "the output cannot be written";

fn execute(command: &Command, out: &mut impl Write) -> anyhow::Result<()> {
    let options = command.options();
    let service = Service::new(options)?;
    match command {
        Command::Train(arguments) => train(&service, arguments, out),
        Command::Predict(arguments) => predict(&service, arguments, out),
        Command::Models(arguments) => {
            show(options, &service.json(Call::get("/models").query(models_query(arguments)))?, text::models, out)
        }
        Command::Model(arguments) => model(&service, arguments, out),
        Command::Cancel(arguments) => {
            let document = service.json(Call::new("POST", format!("/model/{}/cancel", arguments.model)))?;
            show(options, &document, text::status, out)
        }
        Command::Delete(arguments) => delete(&service, arguments, out),
        Command::Export(arguments) => export(&service, arguments, out),
        Command::Upload(arguments) => upload(&service, arguments, out),
        Command::Datasets(arguments) => {
            show(options, &service.json(Call::get("/datasets").query(datasets_query(arguments)))?, text::datasets, out)
        }
        Command::Dataset(arguments) => {
            let document = service.json(Call::get(format!("/dataset/{}", arguments.dataset)))?;
            show(options, &document, text::dataset, out)
        }
    }
}

/// Writes what the service sent, as it is or as text.
fn show<W: Write>(
    options: &Options,
    document: &Document,
    as_text: fn(&Document, &mut W) -> io::Result<()>,
    out: &mut W,
) -> anyhow::Result<()> {
    let written = if options.json { writeln!(out, "{}", document.text) } else { as_text(document, out) };
    written.context(UNWRITABLE)
}

fn train(service: &Service, arguments: &TrainArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let options = &arguments.options;
    let query = train_query(arguments);
    let accepted = match &arguments.file {
        Some(path) => {
            let mut source = Source::open(path)?;
            let bar = waiting::upload_bar(options, source.length())?;
            let accepted = service.json(Call::send("/train", &mut source, &bar).query(query).once())?;
            bar.finish_and_clear();
            accepted
        }
        None => service.json(Call::new("POST", "/train").query(query).once())?,
    };
    let id = accepted.value["model_id"].as_i64().context("the reply has no model_id")?;
    if arguments.wait {
        let document = waiting::wait(service, id, options)?;
        show(options, &document, text::model, out)?;
        return trained(&document);
    }
    show(options, &accepted, text::accepted, out)
}

/// The parameters of a training, as the query string has them.
fn train_query(arguments: &TrainArguments) -> Vec<(&'static str, String)> {
    let mut query = vec![("target", arguments.target.clone())];
    let list = |numbers: &Vec<f64>| numbers.iter().map(|number| format!("{number:?}")).collect::<Vec<_>>().join(",");
    query.extend(arguments.dataset.map(|dataset| ("dataset_id", dataset.to_string())));
    query.extend(arguments.l2.as_ref().map(|penalties| ("l2_coef", list(penalties))));
    query.extend(arguments.folds.map(|folds| ("n_folds", folds.to_string())));
    query.extend(arguments.seed.map(|seed| ("seed", seed.to_string())));
    query.extend(arguments.fold_column.clone().map(|column| ("fold_column", column)));
    query.extend(arguments.weight_column.clone().map(|column| ("weight_column", column)));
    query.extend(arguments.loss.map(|loss| match loss {
        Loss::Mean => ("loss", "mean".to_owned()),
        Loss::Sum => ("loss", "sum".to_owned()),
    }));
    query.extend(arguments.standardize.then(|| ("standardize", "true".to_owned())));
    query.extend(arguments.no_intercept.then(|| ("fit_intercept", "false".to_owned())));
    query.extend(arguments.name.clone().map(|name| ("name", name)));
    query.extend(arguments.tags.clone().map(|tags| ("tags", tags)));
    query
}

/// An error if the model has ended otherwise than trained.
fn trained(document: &Document) -> anyhow::Result<()> {
    let [id, status, error] = ["model_id", "status", "error"].map(|name| text::field(&document.value, name));
    match status.as_str() {
        "trained" => Ok(()),
        "failed" => bail!("model {id} has failed: {}", text::clean(&error)),
        status => bail!("model {id} is not trained: its status is {}", text::clean(status)),
    }
}

fn model(service: &Service, arguments: &ModelArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let (id, options) = (arguments.model, &arguments.options);
    // Before the waiting, which is patient with a service that is away: whether it is there at all, and the model.
    let document = service.json(Call::get(format!("/model/{id}")))?;
    if arguments.wait {
        let document = waiting::wait(service, id.into(), options)?;
        show(options, &document, text::model, out)?;
        return trained(&document);
    }
    show(options, &document, text::model, out)
}

fn predict(service: &Service, arguments: &PredictArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let options = &arguments.options;
    let mut source = Source::open(&arguments.file)?;
    let bar = waiting::upload_bar(options, source.length())?;
    let accept = if options.json { "application/json" } else { "text/csv" };
    let path = format!("/model/{}/predict", arguments.model);
    let reply = service.call(Call::send(path, &mut source, &bar).header("Accept", accept).harmless())?;
    bar.finish_and_clear();
    let mut reply = reply.into_body().into_reader();
    let mut write = |mut out: &mut dyn Write| {
        output::copy(&mut reply, &mut out)?;
        // The service ends CSV with a line's end, and JSON without one.
        if options.json { writeln!(out).context(UNWRITABLE) } else { Ok(()) }
    };
    match &arguments.output {
        Some(path) => output::to_file(path, write),
        None => write(out),
    }
}

fn models_query(arguments: &ModelsArguments) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(arguments.after.map(|after| ("after", after.to_string())));
    query.extend(arguments.status.clone().map(|status| ("status", status)));
    query.extend(arguments.name.clone().map(|name| ("name", name)));
    query.extend(arguments.tag.clone().map(|tag| ("tag", tag)));
    query.extend(arguments.dataset.map(|dataset| ("dataset_id", dataset.to_string())));
    query
}

fn datasets_query(arguments: &DatasetsArguments) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(arguments.after.map(|after| ("after", after.to_string())));
    query.extend(arguments.name.clone().map(|name| ("name", name)));
    query
}

fn delete(service: &Service, arguments: &DeleteArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let (noun, id) = match (arguments.model, arguments.dataset) {
        (Some(id), _) => ("model", id),
        (None, Some(id)) => ("dataset", id),
        (None, None) => bail!("nothing to delete"),
    };
    service.call(Call::new("DELETE", format!("/{noun}/{id}")))?;
    // The service's reply is empty, so that there is no JSON to print.
    if arguments.options.json { Ok(()) } else { writeln!(out, "{noun} {id}: deleted").context(UNWRITABLE) }
}

fn export(service: &Service, arguments: &ExportArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let is_binary = arguments.format == Format::Onnx;
    ensure!(
        arguments.output.is_some() || !is_binary || !io::stdout().is_terminal(),
        "ONNX is nothing for a terminal: name a file with --output"
    );
    let format = if is_binary { "onnx" } else { "python" };
    let call = Call::get(format!("/model/{}", arguments.model)).query(vec![("format", format.to_owned())]);
    let mut reply = service.call(call)?.into_body().into_reader();
    match &arguments.output {
        Some(path) => output::to_file(path, |mut out| output::copy(&mut reply, &mut out)),
        None => output::copy(&mut reply, out),
    }
}

fn upload(service: &Service, arguments: &UploadArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let options = &arguments.options;
    let mut source = Source::open(&arguments.file)?;
    let bar = waiting::upload_bar(options, source.length())?;
    let query = arguments.name.clone().map(|name| ("name", name)).into_iter().collect();
    let document = service.json(Call::send("/datasets", &mut source, &bar).query(query).once())?;
    bar.finish_and_clear();
    show(options, &document, text::dataset, out)
}

//! The command-line client: the real binary against the real service.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Database, Folder, Service, example, generated_csv, long_job, ridgeline};

/// Fifty cars of the 1920s.
pub(crate) fn cars() -> String {
    format!("{}/docs/examples/stopping_distances.csv", env!("CARGO_MANIFEST_DIR"))
}

/// A call of the client for `service`.
pub(crate) fn client(service: &Service, arguments: &[&str]) -> Command {
    let mut command = ridgeline(arguments);
    // Neither a configuration nor a database is any business of the client.
    command.env("RIDGELINE_SERVER", service.url("")).env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
    command.env("ROCKET_NONSENSE", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command has come to: its exit code, its output, what it said besides.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) said: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let [out, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        Self { code: output.status.code(), out, said }
    }
}

pub(crate) fn run(service: &Service, arguments: &[&str]) -> Outcome {
    client(service, arguments).output().unwrap().into()
}

/// The output of a command that succeeds and says nothing else.
#[track_caller]
pub(crate) fn done(service: &Service, arguments: &[&str]) -> String {
    let outcome = run(service, arguments);
    assert!(outcome.code == Some(0) && outcome.said.is_empty(), "{arguments:?}: {outcome:?}");
    outcome.out
}

/// The sentence of a command that fails and prints nothing.
#[track_caller]
pub(crate) fn refused(outcome: Outcome) -> String {
    assert!(outcome.code == Some(1) && outcome.out.is_empty(), "{outcome:?}");
    let sentence = outcome.said.strip_prefix("ridgeline: ").unwrap().trim_end();
    assert!(!sentence.is_empty() && sentence.lines().count() == 1, "{outcome:?}");
    sentence.to_owned()
}

#[track_caller]
pub(crate) fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A client that reads what the test writes.
pub(crate) fn piped(service: &Service, arguments: &[&str]) -> Child {
    client(service, arguments).stdin(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn finish(mut child: Child, input: &str) -> Outcome {
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_training_is_waited_for_and_shown_as_a_table() {
    let database = Database::new();
    let service = Service::start(&database);
    let arguments = [
        "train",
        &cars(),
        "--target",
        "distance_ft",
        "--l2",
        "0, 10,1000",
        "--seed",
        "1930",
        "--name",
        "cars",
        "--wait",
    ];
    let outcome = run(&service, &arguments);
    assert_eq!((outcome.code, outcome.said.as_str()), (Some(0), "waiting for model 1\n"), "{outcome:?}");
    let expected = "\
model 1 (cars): trained
target distance_ft, 50 rows, 2 features, 5 folds, seed 1930
warning: the best penalty 1000 is the largest one given: a larger one may be better

  l2  mean MSE   std MSE
   0  268.3909  178.3547
  10   257.087  168.6822
1000  255.9264  167.4467  best

on all rows: R2 0.665012, RMSE 14.76494

column         coefficient
(intercept)       10.08504
speed_mph        0.0049514
speed_squared    0.1240502
";
    assert_eq!(outcome.out, expected);
    assert_eq!(done(&service, &["model", "1"]), expected);
    let document = done(&service, &["model", "1", "--json", "--wait", "--quiet"]);
    assert_eq!(document, service.get("/model/1").body + "\n");

    // Columns stay in their order.
    let outcome = finish(
        piped(&service, &["train", "-", "--target=y", "--l2=0,1", "--wait", "-q"]),
        "z,a,y\n1,2,3\n2,1,4\n3,5,1\n4,1,2\n5,9,2\n",
    );
    assert!(outcome.out.find("\nz ") < outcome.out.find("\na ") && outcome.out.contains("\nz "), "{outcome:?}");
}

#[test]
fn every_parameter_of_a_training_is_an_option() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let dataset = "f,w,x\u{e4} &=,y\n1,1,2,3\n2,1,4,5\n1,2,2,2\n2,3,0,1\n";
    let outcome = finish(
        piped(
            &service,
            &["train", "-", "--target=y", "--l2=1e-3,2.5", "--fold-column=f", "--weight-column=w", "--json"],
        ),
        dataset,
    );
    assert_eq!(json_of(&outcome.out), json!({"model_id": 1}), "{outcome:?}");
    let params = &service.model(1)["params"];
    assert_eq!(params["l2_coef"], json!([0.001, 2.5]));
    assert_eq!((&params["fold_column"], &params["weight_column"]), (&json!("f"), &json!("w")));

    let options = ["--folds=4", "--seed=18446744073709551615", "--loss=sum", "--standardize", "--no-intercept"];
    let arguments =
        [&["train", "--dataset=1", "--target=x\u{e4} &=", "--name=a +b", "--tags=n\u{e4}chtlich, a &b"][..], &options]
            .concat();
    assert_eq!(done(&service, &arguments), "model 2: queued\n");
    let document = service.model(2);
    assert_eq!((&document["name"], &document["dataset_id"]), (&json!("a +b"), &json!(1)));
    assert_eq!(document["tags"], json!(["n\u{e4}chtlich", "a &b"]));
    let params = &document["params"];
    assert_eq!(
        *params,
        json!({"target": "x\u{e4} &=", "n_folds": 4, "seed": u64::MAX, "loss": "sum", "standardize": true,
               "fit_intercept": false, "l2_coef": null, "fold_column": null, "weight_column": null})
    );
}

#[test]
fn predictions_come_as_csv_with_every_digit_from_files_pipes_and_gzip() {
    let database = Database::new();
    let service = Service::start(&database);
    service.train(&example());
    let csv = "c,b,note\n2,0,x\n-1,1,y\n";
    let exact = service.predict(&json!(1), csv);
    let expected = format!("prediction\n{}\n{}\n", exact[0], exact[1]);

    assert_eq!(finish(piped(&service, &["predict", "1", "-"]), csv).out, expected);
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let path = |name: &str| folder.0.join(name).to_str().unwrap().to_owned();
    fs::write(path("rows.csv"), csv).unwrap();
    assert_eq!(done(&service, &["predict", "1", &path("rows.csv")]), expected);
    let packed = Command::new("gzip").args(["-k", &path("rows.csv")]).status().unwrap();
    assert!(packed.success());
    assert_eq!(done(&service, &["predict", "1", &path("rows.csv.gz")]), expected);
    // From where standard input stands, and into a file that is there when it is complete.
    let mut file = fs::File::open(path("rows.csv")).unwrap();
    let command = &mut client(&service, &["predict", "1", "-", "--json"]);
    let outcome: Outcome = command.stdin(file.try_clone().unwrap()).output().unwrap().into();
    assert_eq!(json_of(&outcome.out), json!({"result": exact}), "{outcome:?}");
    assert!(outcome.out.ends_with("}\n") && file.read(&mut [0]).unwrap() == 0);
    assert_eq!(done(&service, &["predict", "1", &path("rows.csv"), "-o", &path("out.csv")]), "");
    assert_eq!(fs::read_to_string(path("out.csv")).unwrap(), expected);
    let error = refused(run(&service, &["predict", "1", &cars(), "--output", &path("none.csv")]));
    assert!(error.contains("\"b\"") && error.contains("\"c\""), "{error}");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 3);
}

#[test]
fn a_large_csv_streams_through_both_ways() {
    let database = Database::new();
    let service = Service::start(&database);
    let csv = generated_csv(400_000, 2);
    let arguments = ["train", "-", "--target=y", "--l2=1", "--wait", "--json", "--quiet"];
    let mut child = piped(&service, &arguments);
    let mut input = child.stdin.take().unwrap();
    let outcome: Outcome = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(csv.as_bytes()));
        child.wait_with_output().unwrap().into()
    });
    let document = json_of(&outcome.out);
    assert_eq!(document["metrics"]["n_rows"], 400_000, "{outcome:?}");

    let csv = generated_csv(700_000, 2);
    let outcome = std::thread::scope(|scope| {
        let mut child = piped(&service, &["predict", "1", "-"]);
        let mut input = child.stdin.take().unwrap();
        scope.spawn(move || input.write_all(csv.as_bytes()));
        Outcome::from(child.wait_with_output().unwrap())
    });
    assert_eq!((outcome.code, outcome.out.lines().count()), (Some(0), 700_001), "{}", outcome.said);
    assert!(outcome.out.len() > 10 << 20, "{} bytes", outcome.out.len());
}

#[test]
fn predictions_are_taken_while_rows_are_sent_and_a_late_mistake_is_told() {
    let database = Database::new();
    let service = Service::start(&database);
    service.train(&example());
    // A hundred megabytes of predictions: the service makes them while it reads, and waits if nobody takes them.
    const ROWS: usize = 6_000_000;
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let [path, out] = ["rows.csv", "out.csv"].map(|name| folder.0.join(name).to_str().unwrap().to_owned());
    let mut csv = format!("b,c\n{}", "1,2\n".repeat(ROWS));
    fs::write(&path, &csv).unwrap();
    assert_eq!(done(&service, &["predict", "1", &path, "-o", &out]), "");
    let predictions = fs::read_to_string(&out).unwrap();
    assert_eq!(predictions.lines().count(), ROWS + 1);
    let expected = service.predict(&json!(1), "b,c\n1,2\n")[0].to_string();
    assert_eq!(predictions.lines().last(), Some(expected.as_str()));
    fs::remove_file(&out).unwrap();

    csv += "1,oops\n";
    fs::write(&path, &csv).unwrap();
    let error = refused(run(&service, &["predict", "1", &path, "--output", &out]));
    assert!(error.contains(&format!("line {}", ROWS + 2)) && error.contains("oops"), "{error}");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn models_and_datasets_are_listed_shown_cancelled_and_deleted() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let shown = done(&service, &["upload", &cars(), "--name", "cars"]);
    assert!(shown.starts_with("dataset 1 (cars): 50 rows, 3 columns, 0 models\n"), "{shown}");
    assert!(shown.contains("speed_mph        4   25    15.4  5.234501\n"), "{shown}");
    assert_eq!(done(&service, &["dataset", "1"]), shown);
    for (name, tags) in [("first", "old"), ("second", "old,a b"), ("third", "new")] {
        let options = ["--target", "distance_ft", "--seed", "7", "--name", name, "--tags", tags];
        done(&service, &[&["train", "--dataset", "1"][..], &options].concat());
    }
    assert_eq!(
        done(&service, &["model", "2"]),
        "model 2 (second): queued, number 2 in the queue\ntarget distance_ft, seed 7\ntags old,a b\n"
    );
    let list = done(&service, &["models", "--limit", "2"]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines[0], "model  l2  mean MSE  status  created               name    tags");
    assert!(lines[1].starts_with("    3   -         -  queued  20") && lines[1].ends_with("Z  third   new"), "{list}");
    assert_eq!((lines.len(), lines[4]), (5, "more with --after 2"), "{list}");
    let rest = json_of(&done(&service, &["models", "--after", "2", "--json"]));
    assert_eq!((rest["models"].as_array().unwrap().len(), &rest["models"][0]["name"]), (1, &json!("first")));
    let named = done(&service, &["models", "--name=second", "--status=queued", "--dataset=1"]);
    assert!(named.lines().count() == 2 && named.contains("second"), "{named}");
    for (tag, expected) in [("old", &[2, 1][..]), ("a b, old", &[2]), ("ol", &[])] {
        let list = json_of(&done(&service, &["models", "--tag", tag, "--json"]));
        let ids: Vec<i64> =
            list["models"].as_array().unwrap().iter().flat_map(|model| model["model_id"].as_i64()).collect();
        assert_eq!(ids, expected, "{tag}");
    }
    let list = done(&service, &["datasets", "--name", "cars", "--limit", "1"]);
    assert!(list.lines().count() == 2 && list.contains("      1    50        3  20"), "{list}");

    assert_eq!(done(&service, &["cancel", "1"]), "model 1 (first): cancelled\n");
    assert!(refused(run(&service, &["cancel", "1"])).contains("its status is cancelled"));
    assert!(refused(run(&service, &["delete", "--dataset", "1"])).contains("model 2"));
    assert_eq!(done(&service, &["delete", "2"]), "model 2: deleted\n");
    assert_eq!(done(&service, &["delete", "3", "--json"]), "");
    assert_eq!(refused(run(&service, &["model", "3"])), "there is no model 3");
    assert_eq!(done(&service, &["delete", "--dataset", "1"]), "dataset 1: deleted\n");
    assert_eq!(refused(run(&service, &["dataset", "1"])), "there is no dataset 1");
    assert!(refused(run(&service, &["models", "--status", "sleeping"])).contains("status"));
    assert!(refused(run(&service, &["models", "--tag", "a,,b"])).starts_with("tag: expected 1 to 100 characters"));
}

#[test]
fn exports_are_what_the_service_writes() {
    let database = Database::new();
    let service = Service::start(&database);
    service.train(&example());
    let script = done(&service, &["export", "1", "--format", "python"]);
    assert_eq!(script, service.get("/model/1?format=python").body);
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let path = folder.0.join("model.onnx");
    assert_eq!(done(&service, &["export", "1", "--format=onnx", "-o", path.to_str().unwrap()]), "");
    let output = client(&service, &["export", "1", "--format=onnx"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(fs::read(&path).unwrap(), output.stdout);
    // Not to a terminal.
    let command = format!("{} export 1 --format onnx", env!("CARGO_BIN_EXE_ridgeline"));
    let (code, screen) = on_a_terminal(&service, &command);
    assert!(code == Some(1) && screen.contains("name a file with --output"), "{screen}");
}

/// Runs a command on a terminal of its own; the exit code, and everything that the terminal shows.
fn on_a_terminal(service: &Service, command: &str) -> (Option<i32>, String) {
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", command, "/dev/null"]).env("TERM", "xterm");
    let output = script.env("RIDGELINE_SERVER", service.url("")).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_terminal_sees_a_bar_while_it_waits() {
    let database = Database::new();
    let service = Service::start(&database);
    service.submit(&long_job());
    let command = format!("{} model 1 --wait", env!("CARGO_BIN_EXE_ridgeline"));
    let (code, screen) = on_a_terminal(&service, &command);
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("model 1 is training") && screen.contains(" %, ") && screen.contains('['), "{screen}");
    assert!(screen.contains("mean MSE") && screen.contains("and 450 more: --json prints all"), "{screen}");
    let command = format!("{} model 1 --wait --quiet", env!("CARGO_BIN_EXE_ridgeline"));
    let (code, screen) = on_a_terminal(&service, &command);
    assert!(code == Some(0) && screen.starts_with("model 1: trained"), "{screen}");
}

#[test]
fn refusals_and_failures_end_with_1_and_one_sentence() {
    let database = Database::new();
    let service = Service::start(&database);
    let outcome = finish(piped(&service, &["train", "-", "--target=a"]), "a,b\n1,2\n3,oops\n");
    assert!(refused(outcome).contains("line 3"));
    assert!(refused(run(&service, &["train", &cars(), "--target", "nothing"])).contains("\"nothing\""));
    assert!(refused(run(&service, &["train", &cars(), "--target=distance_ft", "--l2=-1"])).contains("l2_coef"));
    assert!(refused(run(&service, &["train", &cars(), "--target=distance_ft", "--tags=a,a"])).contains("tags[1]"));
    assert!(
        refused(run(&service, &["train", "/nonexistent.csv", "--target=y"]))
            .contains("/nonexistent.csv cannot be opened")
    );
    assert!(refused(run(&service, &["upload", "/"])).contains("/ cannot be read"));
    assert!(refused(run(&service, &["predict", "7", &cars()])).contains("no model 7"));

    // A training that fails is shown, and is a failure.
    let overflow = "a,b,c\n1e300,1e300,1\n-1e300,0,1\n1,2,3\n4,5,6\n";
    let outcome = finish(piped(&service, &["train", "-", "--target=a", "--folds=2", "--wait", "--quiet"]), overflow);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(
        outcome.out.starts_with("model 1: failed: ") && outcome.said.starts_with("ridgeline: model 1 has failed: ")
    );
    assert_eq!(outcome.said.lines().count(), 1, "{outcome:?}");
}

//! The operator's guide: its units, alert rules and commands are what systemd, Prometheus and PostgreSQL take.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use crate::documentation::{examples, read};
use crate::support::{Database, Folder, Service, Settings, example, private_program, wait_until};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a tool says that finds no fault.
#[track_caller]
fn approved(command: &mut Command) -> String {
    let output = command.output();
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } =
        output.unwrap_or_else(|error| panic!("{program}: {error}; script/setup test installs it"));
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{program}: {said}");
    said
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    for (unit, instance) in
        [("ridgeline.service", "ridgeline.service"), ("ridgeline-worker@.service", "ridgeline-worker@1.service")]
    {
        let text = fs::read_to_string(root().join("docs/examples").join(unit)).unwrap();
        let (program, user) = ("/usr/local/bin/ridgeline ", "User=ridgeline\n");
        assert!(text.contains(program) && text.contains(user), "{text}");
        // This machine has neither that user nor the program in that place.
        let text = text.replace(program, concat!(env!("CARGO_BIN_EXE_ridgeline"), " ")).replace(user, "User=root\n");
        let path = folder.0.join(instance);
        fs::write(&path, &text).unwrap();
        let said = approved(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        // What it warns of it ignores.
        assert!(!said.contains(instance), "{said}");
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        approved(Command::new("sh").args(["-c", &format!("{start} --help")]));
        for needed in ["KillMode=mixed", "OOMPolicy=continue", "LimitNOFILE=", "StateDirectory=ridgeline\n"] {
            assert!(instance.contains("worker") || text.contains(needed), "{needed}");
        }
    }
}

fn promtool() -> Command {
    let mut command = Command::new(root().join("target/tools/bin/promtool"));
    command.current_dir(root());
    command
}

#[test]
fn the_alerts_are_rules_and_fire_when_they_should() {
    approved(promtool().args(["check", "rules", "docs/examples/alerts.yml"]));
    approved(promtool().args(["test", "rules", "tests/promtool/alerts_test.yml"]));

    // Of what the service really exposes, and none is left out of the guide.
    let database = Database::new();
    let service = Service::without_workers(&database);
    service.get("/models").ok(200);
    let exposed = service.get("/metrics").body;
    let rules = read("docs/examples/alerts.yml");
    let words = |text: &str| -> Vec<String> {
        let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        text.split(|character| !is_word(character)).map(str::to_owned).collect()
    };
    let used: Vec<String> = words(&rules)
        .into_iter()
        .filter(|word| word.starts_with("ridgeline_") || word.starts_with("process_"))
        .collect();
    assert!(used.len() > 10, "{used:?}");
    for metric in used {
        assert!(exposed.lines().any(|line| line.starts_with(&format!("# TYPE {metric} "))), "{metric} is not exposed");
    }
    for label in ["route=\"/models\"", "status=\"200\"", "status=\"training\"", "state=\"in_use\"", "state=\"max\""] {
        assert!(exposed.contains(label), "{label}");
    }
    let guide = read("docs/operating.md");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(guide.contains(&format!("`{alert}`")), "the guide says nothing of {alert}");
        assert!(read("tests/promtool/alerts_test.yml").contains(alert), "no test has {alert}");
    }
}

#[test]
fn a_private_server_is_backed_up_and_restored_by_the_commands_of_the_guide() {
    let folders = [Folder::new(), Folder::new()];
    let start = |folder: &Folder| Settings::new("").set("ROCKET_DATA_DIR", folder.0.display()).serve();
    let scratch = Folder::new();
    fs::create_dir(&scratch.0).unwrap();
    let commands = examples(&read("docs/operating.md"));
    let [dump, restore] = &commands[..] else { panic!("{} commands", commands.len()) };
    let run = |command: &str, folder: &Folder| {
        let command = command.replace("/var/lib/ridgeline", folder.0.to_str().unwrap());
        let programs = private_program(&folder.0, "pg_dump");
        let path =
            format!("{}:{}", PathBuf::from(programs.parent().unwrap()).display(), std::env::var("PATH").unwrap());
        approved(Command::new("bash").args(["-c", &command]).current_dir(&scratch.0).env("PATH", path))
    };
    let mut service = start(&folders[0]);
    let document = service.train(&example());
    let predictions = service.predict(&json!(1), "b,c\n1,2\n");
    run(&dump.command, &folders[0]);
    service.process.stop();

    let mut service = start(&folders[1]);
    service.get("/model/1").error(404);
    run(&restore.command, &folders[1]);
    service.process.stop();
    let service = start(&folders[1]);
    assert_eq!(service.model(1), document);
    assert_eq!(service.predict(&json!(1), "b,c\n1,2\n"), predictions);
    wait_until("a worker trains what is new", || service.train(&example())["model_id"] == 2);
}

//! The documentation: its examples are run as they stand, and do what they say.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Database, Folder, Service, python};

/// The address that the pages give the service.
const ADDRESS: &str = "127.0.0.1:8000";
/// A line of a page that stands for any number of lines.
const ELLIPSIS: &str = "..";

/// A command of a page, and what it is said to print.
pub(crate) struct Example {
    line: usize,
    pub(crate) command: String,
    output: Vec<String>,
}

/// A code block of a page: its language, the number of its first line, its lines.
type Block<'a> = (&'a str, usize, Vec<&'a str>);

pub(crate) fn read(page: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut is_inside = false;
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if is_inside => is_inside = false,
            Some(language) => {
                is_inside = true;
                blocks.push((language, index + 2, Vec::new()));
            }
            None if is_inside => blocks.last_mut().unwrap().2.push(line),
            None => {}
        }
    }
    assert!(!is_inside, "a code block is not closed");
    blocks
}

/// The commands of the blocks `console`, each with its output, and the programs of the blocks `python` that are followed by one.
pub(crate) fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let blocks = blocks(text);
    for (index, (language, first, lines)) in blocks.iter().enumerate() {
        match *language {
            "console" => examples.extend(console(*first, lines)),
            "python" => {
                let Some(("text", _, output)) = blocks.get(index + 1) else {
                    panic!("the program in line {first} is not followed by what it prints")
                };
                let output = output.iter().map(|line| (*line).to_owned()).collect();
                let command = format!("exec \"$PYTHON\" - <<'END'\n{}\nEND", lines.join("\n"));
                examples.push(Example { line: *first, command, output });
            }
            _ => {}
        }
    }
    examples
}

fn console(first: usize, lines: &[&str]) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    // A command goes on while a line ends in a way that asks for more, or a quotation is open.
    let mut goes_on = false;
    for (index, line) in lines.iter().enumerate() {
        if let (false, Some(command)) = (goes_on, line.strip_prefix("$ ")) {
            examples.push(Example { line: first + index, command: command.to_owned(), output: vec![] });
        } else if goes_on {
            examples.last_mut().unwrap().command += &format!("\n{line}");
        } else {
            let example = examples.last_mut().unwrap_or_else(|| panic!("line {}: no command", first + index));
            example.output.push((*line).to_owned());
            continue;
        }
        let command = &examples.last().unwrap().command;
        goes_on = command.ends_with('\\') || command.ends_with('|') || command.matches('\'').count() % 2 == 1;
    }
    examples
}

/// The times in a text, which are others each time, as the letter T.
fn without_times(text: &str) -> String {
    let is_time = |part: &[char]| {
        "dddd-dd-dd dd:dd:dd".chars().zip(part).all(|(pattern, &character)| match pattern {
            'd' => character.is_ascii_digit(),
            ' ' => character == ' ' || character == 'T',
            _ => character == pattern,
        })
    };
    let characters: Vec<char> = text.chars().collect();
    let (mut masked, mut at) = (String::new(), 0);
    while at < characters.len() {
        if at + 19 <= characters.len() && is_time(&characters[at..at + 19]) {
            masked.push('T');
            at += 19;
            while characters.get(at).is_some_and(|character| character.is_ascii_digit() || ".Z".contains(*character)) {
                at += 1;
            }
        } else {
            masked.push(characters[at]);
            at += 1;
        }
    }
    masked
}

/// Whether two numbers are the same to nine digits: processors differ in the last ones.
fn is_near(said: f64, is: f64) -> bool {
    (said - is).abs() <= 1e-9 * said.abs().max(is.abs())
}

/// Whether two lines are the same, their numbers to nine digits.
fn is_same_line(said: &str, is: &str) -> bool {
    let is_digit = |character: char| character.is_ascii_digit() || "+-.e".contains(character);
    let words = |line: &str| line.split(|character| !is_digit(character)).map(str::to_owned).collect::<Vec<_>>();
    let rest = |line: &str| line.replace(is_digit, "");
    let (first, second) = (words(said), words(is));
    let is_same = |(said, is): (&String, &String)| match (said.parse(), is.parse()) {
        (Ok(said), Ok(is)) => is_near(said, is),
        _ => said == is,
    };
    first.len() == second.len() && first.iter().zip(&second).all(is_same) && rest(said) == rest(is)
}

/// Whether two JSON values are the same: times are not compared, and numbers to nine digits.
fn is_same(said: &Value, is: &Value) -> bool {
    match (said, is) {
        (Value::Number(said), Value::Number(is)) => is_near(said.as_f64().unwrap(), is.as_f64().unwrap()),
        (Value::String(said), Value::String(is)) => without_times(said) == without_times(is),
        (Value::Array(said), Value::Array(is)) => {
            said.len() == is.len() && said.iter().zip(is).all(|(said, is)| is_same(said, is))
        }
        (Value::Object(said), Value::Object(is)) => {
            said.len() == is.len()
                && said.iter().zip(is).all(|((name, said), (other, is))| name == other && is_same(said, is))
        }
        _ => said == is,
    }
}

/// Whether the lines are those that a page has, whose [`ELLIPSIS`] stands for any.
fn match_lines(said: &[String], is: &[String]) -> bool {
    match said.split_first() {
        None => is.is_empty(),
        Some((first, rest)) if first == ELLIPSIS => (0..=is.len()).any(|skipped| match_lines(rest, &is[skipped..])),
        Some((first, rest)) => is.first().is_some_and(|line| is_same_line(first, line)) && match_lines(rest, &is[1..]),
    }
}

/// Whether a command prints what its page says.
fn agrees(said: &[String], is: &str) -> bool {
    // Where it is wrapped for reading, a line goes on with blanks.
    let whole: String = said.iter().map(|line| line.trim_start()).collect();
    if let (Ok(said), Ok(is)) = (serde_json::from_str(&whole), serde_json::from_str(is)) {
        return is_same(&said, &is);
    }
    let lines = |text: &str| text.lines().map(|line| without_times(line.trim_end())).collect::<Vec<_>>();
    match_lines(&lines(&said.join("\n")), &lines(is))
}

/// Runs all examples of a page, from top to bottom, with a service and a folder of its own.
fn run(page: &str) {
    let database = Database::new();
    let service = Service::start(&database);
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::os::unix::fs::symlink(docs, folder.0.join("docs")).unwrap();
    let address = service.url("").replace("http://", "");
    let programs = Path::new(env!("CARGO_BIN_EXE_ridgeline")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let examples = examples(&read(page));
    assert!(!examples.is_empty(), "{page} has no examples");
    for Example { line, command, output } in examples {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -o pipefail; {}", command.replace(ADDRESS, &address))]).current_dir(&folder.0);
        shell.env("PATH", &path).env("PYTHON", python()).env("RIDGELINE_SERVER", service.url("")).env("no_proxy", "*");
        let done = shell.output().unwrap();
        let [printed, errors] = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(done.status.success(), "{page}, line {line}: {command}\nends with {}\n{printed}{errors}", done.status);
        let said = output.join("\n");
        assert!(agrees(&output, &printed), "{page}, line {line}: {command}\nprints\n{printed}\nand not\n{said}");
    }
}

#[test]
fn the_examples_of_the_readme_do_what_it_says() {
    run("README.md");
}

#[test]
fn the_examples_of_the_api_do_what_it_says() {
    run("docs/api.md");
}

#[test]
fn every_call_of_the_index_has_an_example() {
    let database = Database::new();
    let service = Service::without_workers(&database);
    let index = service.get("/").ok(200);
    let commands: String = examples(&read("docs/api.md")).into_iter().map(|example| example.command + "\n").collect();
    for call in index["calls"].as_object().unwrap().keys() {
        let path = call.split(' ').nth(1).unwrap().split('?').next().unwrap();
        let pieces: Vec<&str> = path.split("{id}").flat_map(|piece| piece.split("<id>")).collect();
        assert!(pieces.iter().all(|piece| commands.contains(piece)), "docs/api.md has no example of {call}");
    }
}

/// The anchor that a heading has on a web page.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|&character| character.is_alphanumeric() || "-_".contains(character)).collect()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for entry in fs::read_dir(root.join("docs")).unwrap().chain(fs::read_dir(root.join("docs/examples")).unwrap()) {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
    for page in pages {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = root.join(&page).parent().unwrap().join(file);
            let target = if file.is_empty() { root.join(&page) } else { target };
            assert!(target.exists(), "{page} links to {link}, which is not there");
            let is_there = fragment.is_empty() || {
                let text = fs::read_to_string(&target).unwrap();
                text.lines()
                    .any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#').trim()) == fragment)
            };
            assert!(is_there, "{page} links to {link}, where there is no such heading");
        }
    }
}

#[test]
fn a_page_is_read_and_compared_as_it_is_meant() {
    let page = "```console\n$ a 'x\n  y' |\n b\n1\n$ c\n{\"at\":\n  2}\n```\n";
    let examples = examples(page);
    let [first, second] = &examples[..] else { panic!("{} examples", examples.len()) };
    assert_eq!((first.line, first.command.as_str(), &first.output[..]), (2, "a 'x\n  y' |\n b", &["1".to_owned()][..]));
    assert_eq!((second.command.as_str(), second.output.len()), ("c", 2));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (said, is, agree) in [
        ("{\"a\":\n  [1,2]}", "{\"a\":[1,2.0000000001]}", true),
        ("{\"a\":1}", "{\"a\":1.00000001}", false),
        ("{\"a\":\"2026-01-01T00:00:00.123Z\"}", "{\"a\":\"2027-12-31T23:59:59.9Z\"}", true),
        ("{\"a\":null}", "{}", false),
        ("x\n..\nz", "x\ny\ny\nz\n", true),
        ("x\n..\nz", "x\ny\n", false),
        ("made 2026-01-01 00:00:00Z", "made 2027-01-01 00:00:01Z\n", true),
        ("", "x", false),
        ("x: 0.1, e", "x: 0.10000000000001, e", true),
        ("x: 0.1, e", "x: 0.1000001, e", false),
        ("x: 1", "y: 1", false),
    ] {
        assert_eq!(agrees(&lines(said), is), agree, "{said:?} and {is:?}");
    }
}

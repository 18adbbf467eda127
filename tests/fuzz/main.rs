//! Fuzzing: inputs that nobody would think of, for everything that reads what comes from outside.
//!
//! Run without further ado (as `cargo test` does), every input of `corpus/` is tried once. `script/fuzz` builds the same
//! program with LLVM's coverage counters and hands it to libFuzzer, which looks for inputs that lead where none has led
//! before.
#![allow(clippy::unwrap_used, reason = "what breaks the rules is to end the run")]
#![allow(unsafe_code, reason = "libFuzzer is in C++: it is called, and calls back")]

mod bodies;
mod csv;
mod matrices;

use std::ffi::{CString, c_char, c_int};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::{env, fs, io, panic, slice};

// Linked for libFuzzer itself.
use libfuzzer_sys as _;

/// What is tried: it panics where an input breaks what must hold.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
}

const TARGETS: [Target; 3] = [
    Target { name: "csv", run: csv::run },
    Target { name: "matrices", run: matrices::run },
    Target { name: "bodies", run: bodies::run },
];

/// The target that libFuzzer works on.
static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(
        n_arguments: *mut c_int,
        arguments: *mut *mut *mut c_char,
        run: unsafe extern "C" fn(*const u8, usize) -> c_int,
    ) -> c_int;
}

/// What libFuzzer calls. A panic does not get out of it: the process ends, and libFuzzer keeps the input.
unsafe extern "C" fn try_input(data: *const u8, size: usize) -> c_int {
    // SAFETY: libFuzzer hands over its own buffer of that size.
    let bytes = if size == 0 { &[] } else { unsafe { slice::from_raw_parts(data, size) } };
    (CHOSEN.get().unwrap().run)(bytes);
    0
}

/// The name by which libfuzzer-sys calls a target of its own making; nothing calls it here.
#[unsafe(no_mangle)]
fn rust_fuzzer_test_input(_: &[u8]) -> i32 {
    0
}

fn main() -> ExitCode {
    match env::var("RIDGELINE_FUZZ") {
        Ok(name) => {
            let target = TARGETS.iter().find(|target| target.name == name);
            fuzz(target.unwrap_or_else(|| panic!("there is no target {name}")))
        }
        Err(_) => replay(),
    }
}

/// Hands `target` and the arguments of this program to libFuzzer.
fn fuzz(target: &'static Target) -> ExitCode {
    assert!(CHOSEN.set(target).is_ok());
    let arguments: Vec<CString> = env::args().map(|argument| CString::new(argument).unwrap()).collect();
    let mut pointers: Vec<*mut c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let mut n_arguments = arguments.len() as c_int;
    let mut start = pointers.as_mut_ptr();
    // SAFETY: The arguments are strings that end in NUL, as many as it is told, and live on.
    let code = unsafe { LLVMFuzzerRunDriver(&raw mut n_arguments, &raw mut start, try_input) };
    if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tries every input of the corpus.
fn replay() -> ExitCode {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let (mut n_inputs, mut failed) = (0, Vec::new());
    for target in &TARGETS {
        let mut files: Vec<_> =
            fs::read_dir(corpus.join(target.name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "there is no corpus of {}", target.name);
        n_inputs += files.len();
        for file in files {
            let bytes = fs::read(&file).unwrap();
            if panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                failed.push(file);
            }
        }
    }
    let mut output = io::stdout().lock();
    for file in &failed {
        writeln!(output, "this input breaks the rules: {}", file.display()).unwrap();
    }
    writeln!(output, "fuzz corpus: {} passed, {} failed", n_inputs - failed.len(), failed.len()).unwrap();
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! How fast this machine turns a CSV into numbers and numbers into JSON on all cores, with nothing around it.
//!
//! `script/bench` calls it: `csv FILE` prints the seconds to read the file's text from memory, and those to print one number for each
//! of its rows, medians of five.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for the developer")]

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use ridgeline::table::{Header, Pieces, Reader};

/// Runs `task` on every core at once; what it returns there.
fn on_all_cores<T: Send>(task: impl Fn() -> T + Sync) -> Vec<T> {
    let n_cores = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        let running: Vec<_> = (0..n_cores).map(|_| scope.spawn(&task)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The number of cells that were read.
fn parse(text: &[u8]) -> usize {
    let mut pieces = Pieces::default();
    let mut all = Vec::new();
    // As it arrives: what is in no piece yet is moved at each cut.
    for chunk in text.chunks(64 << 10) {
        pieces.push(chunk);
        all.extend(pieces.next_piece().unwrap());
    }
    while let Some(piece) = pieces.next_piece().unwrap() {
        all.push(piece);
    }
    all.extend(pieces.last());
    let header = Header::take(&mut all[0]).unwrap().unwrap();
    let reader = Reader::of_all(&header).unwrap();
    let all = Mutex::new(all);
    let take = || all.lock().unwrap().pop();
    let count = || std::iter::from_fn(take).map(|piece| reader.read(&piece).unwrap().len()).sum::<usize>();
    on_all_cores(count).into_iter().sum::<usize>() / reader.n_columns()
}

fn print(numbers: &[f64]) -> usize {
    on_all_cores(|| serde_json::to_string(numbers).unwrap().len()).into_iter().sum()
}

/// The median of five timings.
fn median(mut task: impl FnMut()) -> f64 {
    let mut seconds = [0.0; 5].map(|_: f64| {
        let start = Instant::now();
        task();
        start.elapsed().as_secs_f64()
    });
    seconds.sort_by(f64::total_cmp);
    seconds[2]
}

fn main() {
    let file = std::env::args().skip(1).find(|argument| argument != "--bench").expect("csv FILE");
    let text = std::fs::read(file).unwrap();
    let mut n_rows = 0;
    let parsing = median(|| n_rows = parse(&text));
    let numbers: Vec<f64> =
        (1..=n_rows.div_ceil(thread::available_parallelism().unwrap().get())).map(|i| (i as f64).sqrt()).collect();
    println!("{parsing} {}", median(|| _ = std::hint::black_box(print(&numbers))));
}

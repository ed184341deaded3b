//! Fuzzing without a view of the code: what comes somewhere new is mutated further.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use millpond_env::Random as _;
use millpond_env::sim::SimRandom;
use millpond_log::fuzz;

/// What a run has done.
pub struct Report {
    pub inputs: u64,
    /// Different ends that inputs came to.
    pub places: usize,
}

/// An input that makes a decoder panic.
pub struct Crash {
    pub input: Vec<u8>,
    pub what: String,
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

pub fn corpus_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs in the tree, by name.
pub fn corpus() -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(corpus_dir()).expect("the corpus is part of the repository");
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file that was just listed")).collect()
}

fn guarded(input: &[u8]) -> Result<String, Crash> {
    catch_unwind(AssertUnwindSafe(|| fuzz::check(input)))
        .map_err(|_| Crash { input: input.to_vec(), what: LAST_PANIC.with(|last| last.take()) })
}

/// Mutates until `is_over`, which gets the number of inputs so far.
pub fn fuzz(seed: u64, is_over: impl Fn(u64) -> bool) -> Result<Report, Crash> {
    // Arrow's own panics on hostile messages are caught where they happen; they need not be printed each time.
    std::panic::set_hook(Box::new(|panic| {
        LAST_PANIC.with(|last| *last.borrow_mut() = panic.to_string());
    }));
    let random = SimRandom::new(seed);
    let mut inputs = corpus();
    let mut places = HashSet::new();
    for input in &inputs {
        places.insert(guarded(input)?);
    }
    let mut done = inputs.len() as u64;
    let below = |bound: usize| (random.next_u64() % bound as u64) as usize;
    while !is_over(done) {
        let mut input = inputs[below(inputs.len())].clone();
        let other = &inputs[below(inputs.len())];
        fuzz::mutate(&random, &mut input, other);
        input.truncate(1 << 16);
        if places.insert(guarded(&input)?) {
            inputs.push(input);
        }
        done += 1;
    }
    Ok(Report { inputs: done, places: places.len() })
}

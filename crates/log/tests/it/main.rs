//! The log from outside: campaigns over a simulated machine, and hostile bytes.

#![allow(clippy::disallowed_methods, reason = "the corpus is read from the repository")]

mod campaign;
mod hostile;

#[test]
fn two_hundred_lives_lose_nothing() {
    // Most of a life is waiting for threads.
    std::thread::scope(|scope| {
        for first in 1..=8 {
            scope.spawn(move || {
                for seed in (first..=200).step_by(8) {
                    if let Err(why) = campaign::live(seed) {
                        panic!("{why}\nagain: cargo xtask sim --seeds 1 --from {seed}");
                    }
                }
            });
        }
    });
}

#[test]
fn hostile_bytes_are_refused_or_read_right() {
    let corpus = hostile::corpus();
    assert!(corpus.len() >= 15, "{} inputs", corpus.len());
    match hostile::fuzz(7, |done| done >= 4_000) {
        Ok(report) => assert!(report.places > 60, "{} different ends of {}", report.places, report.inputs),
        Err(crash) => panic!("{}\n{:?}", crash.what, crash.input),
    }
}

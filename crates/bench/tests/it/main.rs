//! A short run of the oracle, and the proof that it would notice a bug.

mod analyze;
mod failure;
mod stall;
mod topics;

use millpond_bench::oracle::{Options, live};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_view_equals_the_batch_answer() {
    for seed in 1..=25 {
        if let Err(why) = live(seed, &Options::default()).await {
            panic!("{why}\n\nagain: cargo xtask oracle --seeds 1 --from {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skipped_retraction_is_found() {
    let planted = Options { skip_retraction: Some(1), ..Options::default() };
    for seed in 1..=1000 {
        if live(seed, &planted).await.is_err() {
            return;
        }
    }
    panic!("1,000 seeds passed although every view leaves out a retraction");
}

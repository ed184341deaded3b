//! Which runs to merge, and merging them.
//!
//! Size-tiered: runs have a tier by their size, eight times larger each; when there are eight of one tier among the newest
//! runs, and none larger after them, these become one, smaller ones in between included. A byte is then rewritten about once
//! per tier, and a state has fewer than eight runs per tier. Where the newer runs outweigh the oldest one twice, all become
//! one: most of what the oldest holds is likely overwritten, and a restore should not read it.

use std::ops::Range;

use super::Checkpoints;
use super::manifest::{Merged, RunRef};
use crate::{CheckpointError, Run, StateFault};

/// Runs of one tier that are merged.
const FANOUT: usize = 8;

/// Runs up to this are of the lowest tier.
const TIER_BYTES: u64 = 4 << 10;

/// A state of fewer runs is left alone.
const RUNS_MIN: usize = 4;

/// A merge that is worth doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeJob {
    pub state: String,
    /// Adjacent runs, oldest first.
    pub inputs: Vec<RunRef>,
    /// The inputs begin with the state's oldest run.
    pub bottom: bool,
}

impl MergeJob {
    /// To be read; about as much is written at most.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|run| run.bytes).sum()
    }
}

fn tier(bytes: u64) -> u32 {
    (bytes / TIER_BYTES).max(1).ilog2() / FANOUT.ilog2()
}

/// The runs to merge, given the sizes of a state's runs, oldest first.
fn choose(sizes: &[u64]) -> Option<Range<usize>> {
    let (oldest, newer) = sizes.split_first()?;
    if sizes.len() >= RUNS_MIN && newer.iter().sum::<u64>() >= oldest.saturating_mul(2) {
        return Some(0..sizes.len());
    }
    let highest = sizes.iter().map(|&bytes| tier(bytes)).max()?;
    (0..=highest).find_map(|limit| {
        let start = sizes.iter().rposition(|&bytes| tier(bytes) > limit).map_or(0, |larger| larger + 1);
        let of_tier = sizes[start..].iter().filter(|&&bytes| tier(bytes) == limit).count();
        (of_tier >= FANOUT).then_some(start..sizes.len())
    })
}

impl Checkpoints {
    /// The merges that are worth doing now, at most one per state, the smallest first. They read the current manifest: merge,
    /// publish the results, then ask again.
    pub fn plan_merges(&self) -> Vec<MergeJob> {
        let current = self.current();
        let mut jobs: Vec<MergeJob> = current
            .states
            .iter()
            .filter_map(|(state, entry)| {
                let sizes: Vec<u64> = entry.runs.iter().map(|run| run.bytes).collect();
                let range = choose(&sizes)?;
                let bottom = range.start == 0;
                Some(MergeJob { state: state.clone(), inputs: entry.runs[range].to_vec(), bottom })
            })
            .collect();
        jobs.sort_by_key(MergeJob::bytes);
        jobs
    }

    /// Does a merge, on a thread for blocking work, and uploads its output; give the result to a following draft. Needs memory
    /// for the decoded inputs and the output.
    pub async fn merge(&self, job: &MergeJob) -> Result<Merged, CheckpointError> {
        let runs = self.read_all(&job.inputs).await?;
        let bottom = job.bottom;
        let merged = tokio::task::spawn_blocking(move || Run::merge(runs, bottom)?.encode()).await;
        let stopped = |_| CheckpointError::Merge(StateFault::Runs("the merge stopped".to_owned()));
        let encoded = merged.map_err(stopped)?.map_err(CheckpointError::Merge)?;
        let output = self.upload(&job.state, &encoded).await?;
        Ok(Merged { state: job.state.clone(), inputs: job.inputs.clone(), output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds runs of `bytes` each and merges whenever it is worth it; at most `live` bytes are not overwritten.
    fn simulate(runs: usize, bytes: u64, live: u64) -> (u64, usize) {
        let (mut sizes, mut rewritten, mut most) = (Vec::new(), 0, 0);
        for _ in 0..runs {
            sizes.push(bytes);
            while let Some(range) = choose(&sizes) {
                let merged = sizes[range.clone()].iter().sum::<u64>().min(live);
                rewritten += merged;
                sizes.splice(range, [merged]);
            }
            most = most.max(sizes.len());
        }
        (rewritten / (runs as u64 * bytes), most)
    }

    #[test]
    fn bytes_are_rewritten_a_logarithm_of_times() {
        // One percent of a state of 100 MB changes each time: of the 1 MB, some 5 MB are written in all.
        let (amplification, most) = simulate(5_000, 1 << 20, 100 << 20);
        assert!(amplification <= 6, "{amplification}");
        assert!(most <= 24, "{most} runs");
        // A state that only grows, to 5,000 times the first run.
        let (amplification, most) = simulate(5_000, 1 << 16, u64::MAX);
        assert!(amplification <= 10, "{amplification}");
        assert!(most <= 32, "{most} runs");
        // A state that is overwritten as a whole each time.
        let (amplification, most) = simulate(1_000, 1 << 24, 1 << 24);
        assert!(amplification <= 1, "{amplification}");
        assert!(most <= RUNS_MIN, "{most} runs");
    }

    #[test]
    fn few_runs_are_left_alone() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[100]), None);
        assert_eq!(choose(&[100, 100, 100]), None);
        assert_eq!(choose(&[100, 100, 100, 100]), Some(0..4));
        assert_eq!(choose(&[1 << 30, 100, 100, 100]), None);
        assert_eq!(choose(&[1 << 30, 9, 9, 9, 9, 9, 9, 9, 9]), Some(1..9));
    }
}

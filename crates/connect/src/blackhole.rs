//! `connector = 'blackhole'`: a sink that counts and forgets, to measure what comes before it.

use async_trait::async_trait;
use millpond_types::{Commit, Delta, SqlError};

use crate::options::{Options, invalid};
use crate::sink::Sequence;
use crate::{ConnectError, Guarantee, ResolvedSink, Sink, SinkSpec};

pub(crate) fn validate(spec: &SinkSpec) -> Result<ResolvedSink, SqlError> {
    let owner = "connector \"blackhole\"";
    Options::read(owner, &spec.options, &[])?;
    if spec.encoding.is_some() {
        return Err(invalid(format!("{owner} has no FORMAT and no ENCODE")).hint("Leave out that clause."));
    }
    Ok(ResolvedSink { guarantee: Guarantee::Nothing })
}

pub(crate) fn open(spec: &SinkSpec, known: Commit) -> Result<Box<dyn Sink>, SqlError> {
    validate(spec)?;
    Ok(Box::new(Blackhole { sequence: Sequence::from(known), rows: 0 }))
}

struct Blackhole {
    sequence: Sequence,
    rows: u64,
}

#[async_trait]
impl Sink for Blackhole {
    fn committed(&self) -> Commit {
        self.sequence.committed
    }

    async fn write(&mut self, after: Commit, epoch: Commit, deltas: &[Delta]) -> Result<(), ConnectError> {
        if self.sequence.admit(after, epoch)? {
            self.rows += deltas.iter().map(|d| d.rows() as u64).sum::<u64>();
        }
        Ok(())
    }

    fn wants_commit(&self) -> bool {
        false
    }

    async fn commit(&mut self, through: Commit) -> Result<(), ConnectError> {
        if self.sequence.may_commit(through)? {
            self.sequence.committed = through;
        }
        Ok(())
    }

    fn rows_written(&self) -> u64 {
        self.rows
    }
}

use millpond_env::Env;
use millpond_types::{Commit, SqlError};

use crate::{ResolvedSink, Sink, SinkSpec};

pub(crate) fn validate(_spec: &SinkSpec, _env: &Env) -> Result<ResolvedSink, SqlError> {
    unimplemented!()
}

pub(crate) async fn open(_spec: &SinkSpec, _env: &Env, _known: Commit) -> Result<Box<dyn Sink>, SqlError> {
    unimplemented!()
}

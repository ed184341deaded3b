use millpond_env::Env;
use millpond_types::SqlError;

use crate::{ResolvedSource, Source, SourceSpec};

pub(crate) fn validate(_spec: &SourceSpec) -> Result<ResolvedSource, SqlError> {
    unimplemented!()
}

pub(crate) fn open(_spec: &SourceSpec, _env: &Env, _position: Option<&[u8]>) -> Result<Box<dyn Source>, SqlError> {
    unimplemented!()
}

use millpond_env::Env;
use millpond_types::SqlError;

use crate::{ResolvedSource, Source, SourceSpec};

pub(crate) async fn validate(_spec: &SourceSpec, _env: &Env) -> Result<ResolvedSource, SqlError> {
    unimplemented!()
}

pub(crate) async fn open(
    _spec: &SourceSpec,
    _env: &Env,
    _position: Option<&[u8]>,
) -> Result<Box<dyn Source>, SqlError> {
    unimplemented!()
}

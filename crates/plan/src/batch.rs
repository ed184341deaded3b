//! Rewrites that make a plan executable by DataFusion.

use std::sync::Arc;

use datafusion::logical_expr::{LogicalPlan, TableSource};
use millpond_types::SqlError;

use crate::RelationSource;

/// Replaces each [`crate::window::WindowTvf`] by projections (TUMBLE) or an unnest (HOP) of scalar functions.
///
/// # Errors
/// XX000 only.
pub fn batch(plan: LogicalPlan) -> Result<LogicalPlan, SqlError> {
    let _ = plan;
    unimplemented!()
}

/// The plan of a view without the rows that the view's operators refuse as late: above each window function whose
/// aggregate closes by time, a filter `_watermark IS NULL OR window_end + lateness > _watermark`. Its sources scan
/// [`crate::Metadata::Watermark`]. Apply before [`batch`].
///
/// # Errors
/// XX000 only.
pub fn without_late_rows(plan: LogicalPlan, allowed_lateness_us: i64) -> Result<LogicalPlan, SqlError> {
    let _ = (plan, allowed_lateness_us);
    unimplemented!()
}

/// Puts `provide`'s source in the place of each [`RelationSource`] (subqueries included). The new source has the same
/// schema; use DataFusion's `provider_as_source`.
///
/// # Errors
/// Those of `provide`.
pub fn replace_relations(
    plan: LogicalPlan,
    provide: &mut dyn FnMut(&RelationSource) -> Result<Arc<dyn TableSource>, SqlError>,
) -> Result<LogicalPlan, SqlError> {
    let _ = (plan, provide);
    unimplemented!()
}

//! Every function that SQL may name, by its PostgreSQL name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

/// Scalar, aggregate and window functions by lower-case name, aliases included.
#[derive(Debug, Default)]
pub struct Registry {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    window: HashMap<String, Arc<WindowUDF>>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::build);

impl Registry {
    /// The one registry of this process.
    pub fn global() -> &'static Registry {
        &REGISTRY
    }

    fn build() -> Self {
        unimplemented!()
    }

    /// The scalar function of that (lower-case) name.
    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).cloned()
    }

    /// The aggregate function of that (lower-case) name.
    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregate.get(name).cloned()
    }

    /// The window function of that (lower-case) name.
    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.window.get(name).cloned()
    }

    /// All names, sorted, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.scalar.keys().chain(self.aggregate.keys()).chain(self.window.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    pub fn scalar_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }
    pub fn aggregate_names(&self) -> Vec<String> {
        self.aggregate.keys().cloned().collect()
    }
    pub fn window_names(&self) -> Vec<String> {
        self.window.keys().cloned().collect()
    }
}

/// Every scalar function once.
pub fn all_scalar() -> Vec<Arc<ScalarUDF>> {
    unimplemented!()
}

/// Every aggregate function once.
pub fn all_aggregate() -> Vec<Arc<AggregateUDF>> {
    unimplemented!()
}

/// Every window function once.
pub fn all_window() -> Vec<Arc<WindowUDF>> {
    unimplemented!()
}

/// Puts every function into `registry` (a SessionContext or SessionState), replacing those of the same name.
///
/// # Errors
/// If `registry` takes no functions.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    all_scalar().into_iter().try_for_each(|f| registry.register_udf(f).map(|_| ()))?;
    all_aggregate().into_iter().try_for_each(|f| registry.register_udaf(f).map(|_| ()))?;
    all_window().into_iter().try_for_each(|f| registry.register_udwf(f).map(|_| ()))
}

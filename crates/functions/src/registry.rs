//! Every function that SQL may name, by its PostgreSQL name.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::common::Result;
use datafusion::execution::{FunctionRegistry, SessionStateDefaults};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use crate::aggregate::counted::Counted;
use crate::aggregate::exact::Exact;
use crate::aggregate::extreme::Extreme;
use crate::aggregate::moments::Moments;
use crate::aggregate::rows::OfRows;

/// Functions of DataFusion that PostgreSQL has not under that name, or has with another meaning, and that none of ours
/// replaces: a wrong answer is worse than none.
const NOT_POSTGRESQL: [&str; 26] = [
    "generate_series",
    "range",
    "to_char",
    "date_format",
    "to_date",
    "to_time",
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "to_timestamp_nanos",
    "to_local_time",
    "to_unixtime",
    "from_unixtime",
    "make_time",
    "datepart",
    "datetrunc",
    "arrow_cast",
    "arrow_try_cast",
    "cast_to_type",
    "try_cast_to_type",
    "input_file_name",
    "file_row_index",
    "with_metadata",
    "uuid",
    "version",
];

/// Likewise, of aggregates: names of DataFusion for what has another in PostgreSQL.
const NOT_POSTGRESQL_AGGREGATES: [&str; 5] = ["mean", "var", "var_sample", "var_population", "quantile_cont"];

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
        let mut registry = Self::default();
        for function in SessionStateDefaults::default_scalar_functions() {
            registry.add_scalar(function);
        }
        for name in NOT_POSTGRESQL {
            registry.scalar.remove(name);
        }
        // PostgreSQL's take all that is equal, DataFusion's of these names the first one.
        for (name, all) in [("array_remove", "array_remove_all"), ("array_replace", "array_replace_all")] {
            if let Some(function) = registry.scalar(all) {
                registry.scalar.insert(name.to_owned(), function);
            }
        }
        crate::scalar::functions().into_iter().for_each(|function| registry.add_scalar(function));
        for function in SessionStateDefaults::default_aggregate_functions() {
            registry.add_aggregate(function);
        }
        for ours in [Exact::sum(), Exact::avg()] {
            registry.add_aggregate(Arc::new(AggregateUDF::new_from_impl(ours)));
        }
        Moments::all()
            .into_iter()
            .for_each(|f| registry.add_aggregate(Arc::new(AggregateUDF::new_from_impl(f))));
        OfRows::all()
            .into_iter()
            .for_each(|f| registry.add_aggregate(Arc::new(AggregateUDF::new_from_impl(f))));
        for name in ["min", "max"] {
            if let Some(inner) = registry.aggregate(name) {
                registry.add_aggregate(Arc::new(AggregateUDF::new_from_impl(Extreme::over(inner))));
            }
        }
        for name in NOT_POSTGRESQL_AGGREGATES {
            registry.aggregate.remove(name);
        }
        for name in ["regr_count", "approx_distinct"] {
            if let Some(inner) = registry.aggregate(name) {
                registry.add_aggregate(Arc::new(AggregateUDF::new_from_impl(Counted::over(inner))));
            }
        }
        if let Some(function) = registry.aggregate("approx_distinct") {
            registry
                .add_aggregate(Arc::new(function.as_ref().clone().with_aliases(["approx_count_distinct"])));
        }
        if let Some(function) = registry.aggregate("bool_and") {
            registry.add_aggregate(Arc::new(function.as_ref().clone().with_aliases(["every"])));
        }
        for function in SessionStateDefaults::default_window_functions() {
            let function = crate::numbering::numbering(&function).unwrap_or(function);
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str))
            {
                registry.window.insert(name.to_owned(), Arc::clone(&function));
            }
        }
        registry
    }

    fn add_scalar(&mut self, function: Arc<ScalarUDF>) {
        for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
            self.scalar.insert(name.to_owned(), Arc::clone(&function));
        }
    }

    fn add_aggregate(&mut self, function: Arc<AggregateUDF>) {
        for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
            self.aggregate.insert(name.to_owned(), Arc::clone(&function));
        }
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

    /// Of scalar functions.
    pub fn scalar_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }
    /// Of aggregate functions.
    pub fn aggregate_names(&self) -> Vec<String> {
        self.aggregate.keys().cloned().collect()
    }
    /// Of window functions.
    pub fn window_names(&self) -> Vec<String> {
        self.window.keys().cloned().collect()
    }
}

/// Every scalar function once.
pub fn all_scalar() -> Vec<Arc<ScalarUDF>> {
    let functions = &Registry::global().scalar;
    let mut own: Vec<_> = functions.iter().filter(|(name, f)| f.name() == name.as_str()).collect();
    own.sort_by_key(|(name, _)| name.as_str());
    own.into_iter().map(|(_, function)| Arc::clone(function)).collect()
}

/// Every aggregate function once.
pub fn all_aggregate() -> Vec<Arc<AggregateUDF>> {
    let functions = &Registry::global().aggregate;
    let mut own: Vec<_> = functions.iter().filter(|(name, f)| f.name() == name.as_str()).collect();
    own.sort_by_key(|(name, _)| name.as_str());
    own.into_iter().map(|(_, function)| Arc::clone(function)).collect()
}

/// Every window function once.
pub fn all_window() -> Vec<Arc<WindowUDF>> {
    let functions = &Registry::global().window;
    let mut own: Vec<_> = functions.iter().filter(|(name, f)| f.name() == name.as_str()).collect();
    own.sort_by_key(|(name, _)| name.as_str());
    own.into_iter().map(|(_, function)| Arc::clone(function)).collect()
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

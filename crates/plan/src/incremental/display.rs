//! EXPLAIN text.
use std::fmt;

use super::Plan;

impl fmt::Display for Plan {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

/// Prints a plan with the types of all columns.
pub struct Verbose<'a>(&'a Plan);

impl Plan {
    /// EXPLAIN (VERBOSE).
    pub fn verbose(&self) -> Verbose<'_> {
        Verbose(self)
    }
}

impl fmt::Display for Verbose<'_> {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = self.0;
        unimplemented!()
    }
}

//! INSERT, UPDATE, DELETE and expressions of columns.

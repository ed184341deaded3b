//! Kernels over columns that lie in several arrays.

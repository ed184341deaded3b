//! Bounds on a text, checked before a tree is built from it.

/// Longer texts are refused with 54000: bulk data goes through COPY.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

//! Plans executed by DataFusion.

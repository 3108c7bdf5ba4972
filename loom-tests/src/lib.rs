//! Models of the guarantees; see `tests/`.

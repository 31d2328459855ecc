//! Who takes a batch, when it is stored, and who is told.

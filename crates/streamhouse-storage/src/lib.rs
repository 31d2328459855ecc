//! How bytes lie in the object store, and come back.

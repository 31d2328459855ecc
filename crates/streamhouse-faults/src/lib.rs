//! An S3 server that fails on purpose, and a delaying proxy, for tests and benchmarks.

//! The gRPC messages and services, generated at build time.

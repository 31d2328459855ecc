//! The gRPC messages and services, generated at build time from `proto/`.
//!
//! Architecture invariant: generated code and its descriptors only; no rule of the business lives here.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

/// Messages of the package `google`.
pub mod google {
    /// The logical error model.
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}

/// Messages and services of the package `streamhouse`.
pub mod streamhouse {
    /// Public API, stable within `v1`.
    pub mod v1 {
        tonic::include_proto!("streamhouse.v1");
    }
    /// Between nodes.
    pub mod internal {
        /// The first version.
        pub mod v1 {
            tonic::include_proto!("streamhouse.internal.v1");
        }
    }
}

pub use google::rpc;
pub use streamhouse::internal::v1 as internal;
pub use streamhouse::v1;

/// The compiled descriptors of all files, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

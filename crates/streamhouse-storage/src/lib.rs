//! How bytes lie in the object store, and come back.
//!
//! Architecture invariant: this crate knows keys, objects, retries and caches; it knows nothing of metadata, of actors
//! or of what a record is. Every request to a store goes through [`Store`], which owns retries, deadlines and metrics;
//! every key is built and parsed in [`layout`]; every object is encoded and decoded in [`object`].

mod blob;
pub mod cache;
mod claim;
mod error;
mod hedge;
pub mod layout;
mod local;
pub mod metrics;
pub mod object;
mod open;
mod payload;
mod remote;
mod retry;
mod settings;
mod store;
mod writes;

pub use blob::{Blob, BlobError, BlobMeta, Page};
pub use cache::{Ahead, BlockCache, CacheSettings, CachedObject, DiskSettings};
pub use claim::{ClaimError, claim, clusters_in, prove_writes};
pub use error::{DeleteError, GetError, ListError, OpenError, PutError};
pub use layout::{Key, Layout, Prefix};
pub use local::LocalBlob;
pub use open::{open, open_blob};
pub use payload::Payload;
pub use remote::RemoteBlob;
pub use retry::Backoff;
pub use settings::{HedgeMode, StoreSettings};
pub use store::{Purpose, PutOptions, Store};
pub use writes::WritesSeen;

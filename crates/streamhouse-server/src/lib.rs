//! How does the process start, listen and stop? Wires the broker, the metadata log and the store together.
//!
//! Architecture invariant: knows no rule of the business. It reads no settings itself: they come checked.

use streamhouse_broker::metadata::{FeatureLevel, FeatureRange};

mod assemble;
mod data_dir;
mod health;
mod http;
mod kafka;
mod listen;
mod logging;
mod metadata_log;
mod offline;
mod run;
mod snapshots;
mod sweep_gate;
mod telemetry;

pub use assemble::{EntryError, IdentityError, Running, StartError, Tuning, start, start_tuned};
pub use data_dir::{DataDir, DataDirError};
pub use health::{Check, Health, Heart};
pub use listen::ListenError;
pub use logging::start_logging;
pub use offline::{Offline, OfflineError};
pub use run::{Addresses, DevOptions, Ready, RunError, Signals, run_dev, run_server};
pub use streamhouse_config as config;
pub use streamhouse_config::{
    Config, ConfigError, ConfigSources, EffectiveValue, Preset, check_config, print_config,
};
pub use streamhouse_grpc::{Operation, Principal, ROWS, Resource, Row, authorize, row_of};
pub use telemetry::Telemetry;

/// The version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit of its sources, `unknown` outside a checkout.
pub const COMMIT: &str = env!("STREAMHOUSE_COMMIT");

/// The feature levels that this version understands: what a cluster has agreed on changes what its nodes write.
/// Level 2 has consumer groups, and settings of topics that are kept for what will obey them; level 3 has more of these; at
/// level 4 they are edited where they are, and it is remembered which were set.
pub(crate) const FEATURES: FeatureRange =
    FeatureRange { min: FeatureLevel::FIRST, max: FeatureLevel::NEWEST };

/// The messages of the API, in which [`Offline`] answers.
pub use streamhouse_proto::v1 as api;

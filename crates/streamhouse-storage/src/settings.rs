//! Which store, and how it is reached.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Whether a slow request to a remote store gets a second one beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HedgeMode {
    /// When the first takes longer than 95 of 100 like it: up to 5 more reads and 10 more writes for 100.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Which object store holds the data, and how it is reached.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// `file:///path`, `memory://`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// Base URL of an S3-compatible server, such as `http://127.0.0.1:9000`. Buckets are then part of the path.
    pub endpoint: Option<String>,
    /// Region of the bucket (S3 only); `us-east-1` when it is not given.
    pub region: Option<String>,
    /// Access key (S3), or account name (Azure).
    pub access_key_id: Option<String>,
    /// Secret of the access key (S3), account key (Azure), or service account key as JSON (Google).
    pub secret_access_key: Option<String>,
    /// Token of temporary credentials (S3 only).
    pub session_token: Option<String>,
    /// Allows `http://` endpoints: requests and data then cross the network in the clear.
    pub allow_http: bool,
    /// Whether slow requests get a second one beside them: shorter waits for more requests to pay.
    pub hedge: HedgeMode,
}

impl StoreSettings {
    /// A folder of this machine.
    #[must_use]
    pub fn local(folder: &Path) -> Self {
        let url =
            url::Url::from_file_path(folder).map_or_else(|()| folder.display().to_string(), String::from);
        Self::at(url)
    }

    /// The store of a URL, everything else as it is by default.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }
}

/// Secrets are left out.
impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSettings")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "***"))
            .field("session_token", &self.session_token.as_ref().map(|_| "***"))
            .field("allow_http", &self.allow_http)
            .field("hedge", &self.hedge)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let canary = || Some("canary-7f3a".to_owned());
        let settings = StoreSettings {
            secret_access_key: canary(),
            session_token: canary(),
            ..StoreSettings::at("s3://b")
        };
        assert!(!format!("{settings:?}").contains("canary"), "{settings:?}");
    }
}

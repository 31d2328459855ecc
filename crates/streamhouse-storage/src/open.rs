//! Opening a store by its URL.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use streamhouse_env::Env;
use url::Url;

use crate::blob::Blob;
use crate::error::OpenError;
use crate::layout::Key;
use crate::local::LocalBlob;
use crate::remote::{CONNECT_TIMEOUT, POOL_IDLE, RemoteBlob, StatusConnector};
use crate::settings::{HedgeMode, StoreSettings};
use crate::store::Store;

/// Opens the store that the settings name. A folder is made if it is not there; nothing is asked of a remote store.
///
/// # Errors
/// When the URL or the settings cannot be used, or the folder cannot.
pub async fn open(settings: &StoreSettings, env: &Env) -> Result<Store, OpenError> {
    let store = Store::new(open_blob(settings, env).await?, env);
    Ok(match settings.hedge {
        HedgeMode::Auto => store.hedged(),
        HedgeMode::Off => store,
    })
}

/// As [`open`], without retries, deadlines, second requests and metrics.
///
/// # Errors
/// As `open`.
pub async fn open_blob(settings: &StoreSettings, env: &Env) -> Result<Arc<dyn Blob>, OpenError> {
    let bad_url = |source| OpenError::BadUrl { url: settings.url.clone(), source };
    let url = Url::parse(&settings.url).map_err(bad_url)?;
    Ok(match url.scheme() {
        "file" => {
            let missing = "an absolute path";
            let path = url.to_file_path().map_err(|()| incomplete(settings, missing))?;
            Arc::new(LocalBlob::open(path).await?)
        }
        "memory" => Arc::new(RemoteBlob::new(Arc::new(InMemory::new()), "")),
        "s3" => remote(&url, |bucket| s3(settings, bucket, env), settings)?,
        "gs" => remote(&url, |bucket| google(settings, bucket, env), settings)?,
        "az" => remote(&url, |container| azure(settings, container, env), settings)?,
        scheme => return Err(OpenError::UnknownScheme { scheme: scheme.to_owned() }),
    })
}

fn incomplete(settings: &StoreSettings, missing: &'static str) -> OpenError {
    OpenError::Incomplete { url: settings.url.clone(), missing }
}

fn remote(
    url: &Url,
    client: impl FnOnce(&str) -> object_store::Result<Arc<dyn ObjectStore>>,
    settings: &StoreSettings,
) -> Result<Arc<dyn Blob>, OpenError> {
    let bucket = url.host_str().filter(|host| !host.is_empty());
    let bucket = bucket.ok_or_else(|| incomplete(settings, "a bucket"))?;
    let prefix = url.path().trim_matches('/');
    if !prefix.is_empty() && prefix.parse::<Key>().is_err() {
        return Err(OpenError::BadPrefix { prefix: prefix.to_owned() });
    }
    // The TLS library has no cryptography of its own. An error means that the process has chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client(bucket).map_err(OpenError::Settings)?;
    Ok(Arc::new(RemoteBlob::new(client, prefix)))
}

/// Time and retries are the business of [`Store`]: the client must neither wait nor try again by itself.
fn client_options(settings: &StoreSettings) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(settings.allow_http)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
        .with_read_timeout_disabled()
        .with_pool_idle_timeout(POOL_IDLE)
}

fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

fn s3(settings: &StoreSettings, bucket: &str, env: &Env) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(settings.region.as_deref().unwrap_or("us-east-1"))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // The payload is protected by its CRC-64 and by TLS; see docs/adr/0004-unsigned-payload.md.
        .with_unsigned_payload(true)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        // One object at a time: a single DELETE is cheaper than a list of one.
        .with_disable_bulk_delete(true)
        .with_retry(no_retries())
        .with_client_options(client_options(settings))
        .with_http_connector(StatusConnector::new(env));
    if let Some(endpoint) = &settings.endpoint {
        builder =
            builder.with_endpoint(endpoint.trim_end_matches('/')).with_virtual_hosted_style_request(false);
    }
    if let Some(id) = &settings.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &settings.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    if let Some(token) = &settings.session_token {
        builder = builder.with_token(token);
    }
    Ok(Arc::new(builder.build()?))
}

fn google(settings: &StoreSettings, bucket: &str, env: &Env) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_client_options(client_options(settings))
        .with_http_connector(StatusConnector::new(env));
    if let Some(key) = &settings.secret_access_key {
        builder = builder.with_service_account_key(key);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

fn azure(settings: &StoreSettings, container: &str, env: &Env) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_retry(no_retries())
        .with_client_options(client_options(settings))
        .with_http_connector(StatusConnector::new(env));
    if let Some(account) = &settings.access_key_id {
        builder = builder.with_account(account);
    }
    if let Some(key) = &settings.secret_access_key {
        builder = builder.with_access_key(key);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    Ok(Arc::new(builder.build()?))
}

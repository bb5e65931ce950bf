//! Files in an object store: S3 and what speaks like it, Google's, Azure's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_http::Client;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::buffered::BufWriter;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme};
use reqwest::Method;
use tokio::io::AsyncWriteExt as _;
use url::Url;

/// The store of a URL, and the path in it.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    signer: Arc<dyn Signer>,
    prefix: Path,
}

/// Speaks to object stores as to everything else: over the system's trust store and proxies.
#[derive(Debug)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

impl Bucket {
    /// The store of a URL: `s3://bucket/path`. Who asks, and where, is in the variables that others use, too. An error
    /// is about the field that has the URL.
    pub fn open(url: &str, field: &str, host: &Host) -> Result<Self, BuildError> {
        let wrong = |error: &(dyn std::error::Error + 'static)| {
            BuildError::input(format!("cannot use the object store: `{url}`"))
                .field(field)
                .caused_by(error)
                .hint("expected a URL such as `s3://bucket/path`, `gs://bucket/path` or `az://container/path`")
        };
        let parsed: Url = url
            .parse()
            .map_err(|error: url::ParseError| wrong(&error))?;
        let (scheme, path) = ObjectStoreScheme::parse(&parsed).map_err(|error| wrong(&error))?;
        let client = Client::new(host).map_err(|error| wrong(&error))?;
        let connector = Connector(client.inner().clone());
        let variables = |start: &'static str| {
            let all = host.variables.iter();
            all.filter(move |(name, _)| name.starts_with(start))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        };
        macro_rules! built {
            ($builder:ident, $start:literal) => {{
                let mut builder = $builder::new().with_url(url).with_http_connector(connector);
                for (name, value) in variables($start) {
                    // Variables that mean something to others are of no concern.
                    if let Ok(key) = name.parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let store = Arc::new(builder.build().map_err(|error| wrong(&error))?);
                let signer: Arc<dyn Signer> = store.clone();
                (store as Arc<dyn ObjectStore>, signer)
            }};
        }
        let (store, signer) = match scheme {
            ObjectStoreScheme::AmazonS3 => built!(AmazonS3Builder, "AWS_"),
            ObjectStoreScheme::GoogleCloudStorage => built!(GoogleCloudStorageBuilder, "GOOGLE_"),
            ObjectStoreScheme::MicrosoftAzure => built!(MicrosoftAzureBuilder, "AZURE_"),
            _ => {
                return Err(wrong(&std::io::Error::other(
                    "it is of no kind that is known",
                )));
            }
        };
        Ok(Self {
            store,
            signer,
            prefix: path,
        })
    }

    fn path(&self, name: &str) -> Path {
        let parts = self.prefix.parts();
        parts.chain(name.split('/').map(Into::into)).collect()
    }

    /// Whether a file is there, and is going to be for some time.
    pub async fn has(&self, name: &str, newer: SystemTime) -> object_store::Result<bool> {
        match self.store.head(&self.path(name)).await {
            Ok(meta) => Ok(SystemTime::from(meta.last_modified) > newer),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a file there: all of it or nothing.
    pub async fn put(&self, name: &str, file: &std::path::Path) -> std::io::Result<()> {
        let mut from = tokio::fs::File::open(file).await?;
        let mut to = BufWriter::new(Arc::clone(&self.store), self.path(name));
        if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
            // Parts that nobody puts together would be paid for.
            let _ = to.abort().await;
            return Err(error);
        }
        to.shutdown().await
    }

    /// A URL by which anybody gets a file, and nothing else, for so long.
    pub async fn lend(&self, name: &str, time: Duration) -> object_store::Result<Url> {
        let path = self.path(name);
        self.signer.signed_url(Method::GET, &path, time).await
    }

    /// The content of a file.
    pub async fn get(
        &self,
        name: &str,
    ) -> object_store::Result<BoxStream<'static, object_store::Result<Bytes>>> {
        Ok(self.store.get(&self.path(name)).await?.into_stream())
    }

    /// Removes a file.
    pub async fn remove(&self, name: &str) -> object_store::Result<()> {
        self.store.delete(&self.path(name)).await
    }

    /// Removes files that were put there before a time.
    pub async fn collect(&self, folder: &str, before: SystemTime) -> object_store::Result<u64> {
        let folder = self.path(folder);
        let mut all = self.store.list(Some(&folder));
        let mut count = 0;
        while let Some(meta) = all.try_next().await? {
            if SystemTime::from(meta.last_modified) < before {
                self.store.delete(&meta.location).await?;
                count += 1;
            }
        }
        Ok(count)
    }
}

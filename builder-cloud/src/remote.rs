//! A build service, whichever it is: what the builder asks of one. [`wire`](crate::wire) speaks to ours; that of
//! somebody else would be another implementation.

use std::io::{self, Read};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use imagespec_build_api::{Build, Happened, Wanted};
use imagespec_core::builder::BuiltImage;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;

/// Opens a file from its beginning, once for every try.
pub(crate) type Open<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync);

/// What is asked of a service.
#[async_trait]
pub(crate) trait Remote: Send + Sync {
    /// Which it is: a few words.
    async fn hello(&self) -> Result<String, BuildError>;
    /// The image, if it is there.
    async fn find(&self, wanted: &Wanted) -> Result<Option<BuiltImage>, BuildError>;
    /// Which files it does not have.
    async fn missing(&self, files: &[Digest]) -> Result<Vec<Digest>, BuildError>;
    /// The largest file that may come with others, and the most bytes of those together.
    fn packing(&self) -> (u64, u64);
    /// Sends small files together.
    async fn send_pack(&self, files: Vec<(Digest, Bytes)>) -> Result<(), BuildError>;
    /// Sends a file. Where it breaks off, it goes on from there.
    async fn send(&self, digest: &Digest, size: u64, open: Open<'_>) -> Result<(), BuildError>;
    /// Asks for a build.
    async fn submit(&self, wanted: &Wanted) -> Result<Submitted, BuildError>;
    /// A build as it is now.
    async fn show(&self, id: &str) -> Result<Build, BuildError>;
    /// What happens in a build after an event: until it is over, or the connection.
    async fn events(
        &self,
        id: &str,
        after: i64,
    ) -> Result<BoxStream<'static, Result<Told, BuildError>>, Gone>;
    /// Stops a build.
    async fn cancel(&self, id: &str) -> Result<(), BuildError>;
}

/// What came of asking for a build.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// It was taken on, or others had asked for the same.
    Accepted {
        /// The build.
        id: String,
        /// Whether nobody else had asked.
        created: bool,
    },
    /// Files are not there any more.
    Lacking,
}

/// Why nothing is told of a build.
#[derive(Debug)]
pub(crate) enum Gone {
    /// The service does not want to, and will not later.
    Refused(BuildError),
    /// The service is away, or in trouble: it may come back.
    Lost(BuildError),
}

/// What is told of a build.
#[derive(Debug)]
pub(crate) enum Told {
    /// Something happened, with its number.
    Happened(i64, Happened),
    /// It is over.
    Ended(Box<Build>),
}

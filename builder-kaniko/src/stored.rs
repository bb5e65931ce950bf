//! A context that waits for its pod in an object store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use imagespec_bucket::Bucket;
use imagespec_core::context::BuildContext;
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_http::Client;

use crate::assignment::{authorities, lent};
use crate::backend::Kaniko;
use crate::context::{Archive, unread};
use crate::job::{Brought, Fetcher, URL};

/// Up to what age a context is taken that another build has brought: a store may remove what is old.
const FRESH: Duration = Duration::from_hours(12);
/// How much longer than a build may take its pod may ask: the clocks of both may differ.
const MARGIN: Duration = Duration::from_mins(15);

impl Kaniko {
    /// Brings a context to the object store, unless it has it, and lends the build a URL by which it gets that and nothing
    /// else. Interrupted, it leaves no half of one.
    pub(crate) async fn store_context(
        &self,
        bucket: &Bucket,
        archive: &Archive,
        platform: &Platform,
        cx: &BuildContext<'_>,
        lent: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<Fetcher, BuildError> {
        let own = Platform::host();
        if *platform != own {
            let message = format!(
                "option `context_store` fetches contexts with this program, which is for `{own}`"
            );
            return Err(BuildError::input(message)
                .field("builder_options")
                .hint(format!(
                    "leave it out to stream the context to nodes of `{platform}`"
                )));
        }
        let (image, command) = self.program(cx, true).await?;
        let digest = tokio::task::block_in_place(|| archive.digest());
        let digest = digest.map_err(|error| unread(&error))?;
        let name = format!("{}.tar.gz", digest.hex());
        let brought = cx
            .cancel
            .run_until_cancelled(bring(bucket, &name, archive, cx));
        brought.await.ok_or_else(BuildError::interrupted)??;
        let time = self.options.deadline + MARGIN;
        let at = bucket
            .lend(&name, time)
            .await
            .map_err(|error| lost(&error))?;
        lent.insert(URL.to_owned(), at.as_str().as_bytes().to_vec());
        if let Some(content) = authorities(&self.host.variables)? {
            lent.insert(lent::AUTHORITIES.to_owned(), content);
        }
        let program = Brought { image, command };
        Ok(Fetcher { program, digest })
    }
}

/// Puts a context there that is not, or might not be for much longer.
async fn bring(
    bucket: &Bucket,
    name: &str,
    archive: &Archive,
    cx: &BuildContext<'_>,
) -> Result<(), BuildError> {
    let now = SystemTime::now();
    let newer = now.checked_sub(FRESH).unwrap_or(SystemTime::UNIX_EPOCH);
    let step = cx
        .progress
        .step("context", "bring the context to the object store");
    let has = bucket
        .has(name, newer)
        .await
        .map_err(|error| lost(&error))?;
    if !has {
        let put = bucket.put(name, archive.path()).await;
        put.map_err(|error| lost(&error))?;
    }
    step.finish(has, archive.megabytes());
    Ok(())
}

fn lost(error: &(dyn std::error::Error + 'static)) -> BuildError {
    BuildError::unavailable("the object store of build contexts cannot be used")
        .field("builder_options")
        .caused_by(error)
        .hint("option `context_store` names it; who asks is in `AWS_…`, `GOOGLE_…` or `AZURE_…` variables")
}

/// In a pod: gets the content of a digest from the URL that a file has.
pub async fn fetch(host: &Host, from: &Path, digest: &Digest, to: &Path) -> Result<(), BuildError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        BuildError::unavailable("cannot fetch the build context").caused_by(error)
    };
    let url = fs_err::read_to_string(from).map_err(|error| failed(&error))?;
    let url = url.trim().parse().map_err(|_| {
        // It is a secret, and an error of a parser might repeat it.
        BuildError::failed("the build is lent no URL of its context")
    })?;
    let client = Client::new(host).map_err(|error| failed(&error))?;
    let fetched = client.download(&url, Some(digest), None, to, &|_| ());
    fetched.await.map_err(|error| failed(&error))?;
    // Whoever the executor runs as reads it.
    #[cfg(unix)]
    fs_err::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(|error| failed(&error))?;
    Ok(())
}

//! Files of channels, over HTTP or in a folder of this machine.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use imagespec_core::host::Host;
use imagespec_http::{Client, Expected, HttpError};
use reqwest::StatusCode;
use reqwest::header::IF_MODIFIED_SINCE;
use url::Url;

use crate::channel::Channels;
use crate::error::CondaError;

/// A user, and a password where there is one.
pub type Login = (String, Option<String>);

/// How channels are reached.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// Speaks HTTP.
    pub client: &'a Client,
    /// Where things are kept.
    pub host: &'a Host,
    /// What the names of channels lead to, and the secrets in their URLs.
    pub channels: &'a Channels,
    /// What to say to the server of a URL.
    pub login: &'a (dyn Fn(&Url) -> Option<Login> + Sync),
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

/// What came of asking for a file that may have changed.
pub(crate) enum Fetched {
    /// There is none.
    Absent,
    /// It is the one that is known.
    Unchanged,
    /// It is here now.
    New,
}

impl Session<'_> {
    /// Where things of channels are kept on this machine.
    pub(crate) fn cache(&self) -> PathBuf {
        cache(self.host)
    }

    /// A small file, at most `limit` bytes; `None` where there is none.
    pub(crate) async fn small(&self, url: &Url, limit: u64) -> Result<Option<Vec<u8>>, CondaError> {
        if let Some(path) = local(url) {
            let file = match fs_err::File::open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            let mut bytes = Vec::new();
            file.take(limit + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(HttpError::TooLarge {
                    url: url.to_string(),
                    limit,
                }
                .into());
            }
            return Ok(Some(bytes));
        }
        let (real, login) = self.real(url);
        let answer = self
            .client
            .send_ok(|client| with_login(client.get(real.clone()), login.as_ref()))
            .await;
        let body = match answer {
            Ok(response) => self.client.read(response, limit).await,
            Err(error) => Err(error),
        };
        match body {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(shown(error, url, &real)),
        }
    }

    /// Brings a file of at most `limit` bytes to `to`, unless it is the same since `since`.
    pub(crate) async fn large(
        &self,
        url: &Url,
        to: &Path,
        since: Option<SystemTime>,
        limit: u64,
    ) -> Result<Fetched, CondaError> {
        let expected = Expected {
            limit,
            ..Expected::default()
        };
        match self.get(url, to, expected, since, &|_| ()).await {
            Ok(()) => Ok(Fetched::New),
            Err(error) if is_absent(&error) => Ok(Fetched::Absent),
            Err(error) if error.status() == Some(StatusCode::NOT_MODIFIED) => {
                Ok(Fetched::Unchanged)
            }
            Err(error) => Err(shown(error, url, &self.real(url).0)),
        }
    }

    /// Brings a file that is known by its digest and size to `to`.
    pub(crate) async fn known(
        &self,
        url: &Url,
        to: &Path,
        expected: Expected,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CondaError> {
        let got = self.get(url, to, expected, None, progress).await;
        got.map_err(|error| shown(error, url, &self.real(url).0))
    }

    async fn get(
        &self,
        url: &Url,
        to: &Path,
        expected: Expected,
        since: Option<SystemTime>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), HttpError> {
        if let Some(path) = local(url) {
            return copy(&path, url, to, expected);
        }
        let (real, login) = self.real(url);
        let request = |client: &reqwest::Client| {
            let request = with_login(client.get(real.clone()), login.as_ref());
            match since {
                Some(since) => request.header(IF_MODIFIED_SINCE, httpdate::fmt_http_date(since)),
                None => request,
            }
        };
        let got = self
            .client
            .download_with(request, &real, expected, to, progress)
            .await;
        got.map(|_| ())
    }

    /// The URL that is asked, with its secrets.
    fn real(&self, url: &Url) -> (Url, Option<Login>) {
        let real = self.channels.with_secrets(url);
        let login = (self.login)(url);
        (real.unwrap_or_else(|| url.clone()), login)
    }
}

/// Where things of channels are kept on a machine.
pub(crate) fn cache(host: &Host) -> PathBuf {
    host.cache_dir.join("conda")
}

fn with_login(request: reqwest::RequestBuilder, login: Option<&Login>) -> reqwest::RequestBuilder {
    match login {
        Some((user, password)) => request.basic_auth(user, password.as_ref()),
        None => request,
    }
}

fn local(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| url.to_file_path().ok())?
}

/// Servers that list no folders answer 403 for what is not there.
fn is_absent(error: &HttpError) -> bool {
    match error {
        HttpError::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        error => error
            .status()
            .is_some_and(|status| matches!(status.as_u16(), 403 | 404 | 410)),
    }
}

/// A failure as it may be shown: a token is in the path of a URL, which others show.
fn shown(error: HttpError, url: &Url, real: &Url) -> CondaError {
    if url.path() == real.path() {
        return error.into();
    }
    let real = imagespec_http::redacted(real);
    let text = error.to_string().replace(&real, url.as_str());
    let text = if text.contains(real.as_str()) {
        format!("cannot fetch `{url}`")
    } else {
        text
    };
    CondaError::Fetch(text)
}

fn copy(from: &Path, url: &Url, to: &Path, expected: Expected) -> Result<(), HttpError> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let limit = expected.size.unwrap_or(expected.limit);
    let mut source = fs_err::File::open(from)?.take(limit + 1);
    let mut file = tempfile::Builder::new()
        .prefix(".copy-")
        .tempfile_in(folder)?;
    let copied = std::io::copy(&mut source, &mut file)?;
    if copied > limit {
        return Err(HttpError::TooLarge {
            url: url.to_string(),
            limit,
        });
    }
    if let Some(wanted) = expected.digest {
        let mut copy = fs_err::File::open(file.path())?;
        let (found, _) = imagespec_core::digest::Digest::of_reader(&mut copy)?;
        if found != wanted {
            return Err(HttpError::Mismatch {
                url: url.to_string(),
                expected: wanted,
                found,
            });
        }
    }
    imagespec_oci::store::publish(file, to)?;
    Ok(())
}

//! Engines of other machines, reached as Docker's command reaches them: `ssh` runs `docker system dial-stdio` there,
//! whose input and output are a connection to the engine.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::Uri;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use url::Url;

/// The most that is kept of what `ssh` says, in bytes.
const SAID: u64 = 64 << 10;
/// How long `ssh` waits for the other machine, in seconds, as Docker's command has it.
const CONNECT_TIMEOUT: u32 = 30;

/// An engine of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ssh {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The engine's socket there, where the command there is not to choose.
    socket: Option<String>,
}

impl Ssh {
    /// Reads `ssh://[USER@]HOST[:PORT][/SOCKET]`. What could be taken for an option of `ssh` is none, nor is an address
    /// with a password.
    pub(super) fn parse(address: &str) -> Option<Self> {
        let url = Url::parse(address).ok()?;
        let is_plain = |text: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+@~/:%[]".contains(c);
            !text.starts_with('-') && text.chars().all(allowed)
        };
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let host = url.host_str()?;
        let host = host.trim_matches(['[', ']']);
        let socket = Some(url.path()).filter(|path| !matches!(*path, "" | "/"));
        let is_known = url.scheme() == "ssh"
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && [user, Some(host), socket]
                .into_iter()
                .flatten()
                .all(is_plain);
        is_known.then(|| Self {
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port: url.port(),
            socket: socket.map(str::to_owned),
        })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("-oConnectTimeout={CONNECT_TIMEOUT}"),
            // There is nobody to ask: the terminal is not this program's alone.
            "-oBatchMode=yes".to_owned(),
            "-T".to_owned(),
        ];
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        if let Some(socket) = &self.socket {
            arguments.push(format!("--host=unix://{socket}"));
        }
        arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        arguments
    }

    /// A connection of its own. Whether it reaches an engine shows when something is read.
    pub(super) fn connect(&self) -> io::Result<Connection> {
        let mut command = Command::new("ssh");
        command
            .args(self.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // An interrupt at the terminal is for this program, which ends the build in the engine.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("`ssh` cannot be run: {error}"))
        })?;
        let (Some(input), Some(output), Some(mut errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let said = tokio::spawn(async move {
            let mut said = Vec::new();
            let read = (&mut errors).take(SAID).read_to_end(&mut said).await;
            // One that says more is not kept waiting.
            let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
            read.map(|_| String::from_utf8_lossy(&said).trim().to_owned())
        });
        let failure = async move {
            let said = said.await.ok().and_then(Result::ok).unwrap_or_default();
            let reason = if said.is_empty() {
                "it ends without a word".to_owned()
            } else {
                said
            };
            io::Error::other(format!("`ssh`: {reason}"))
        };
        Ok(Connection {
            input,
            output,
            failure: Some(failure.boxed()),
            has_read: false,
            _child: child,
        })
    }

    /// A client of the engine's API, each of whose requests has a connection of its own.
    pub(super) fn client(&self, patience: u64) -> Result<Docker, Error> {
        let this = Arc::new(self.clone());
        let transport = move |request| {
            let this = this.clone();
            async move { this.send(request).await }.boxed()
        };
        let address = Some("http://localhost");
        Docker::connect_with_custom_transport(transport, address, patience, API_DEFAULT_VERSION)
    }

    async fn send(
        &self,
        request: BollardRequest,
    ) -> Result<hyper::Response<hyper::body::Incoming>, Error> {
        let failed = |error: hyper::Error| {
            let mut cause: &(dyn std::error::Error + 'static) = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            io::Error::other(cause.to_string())
        };
        let stream = TokioIo::new(self.connect()?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        let (mut head, body) = request.into_parts();
        head.headers
            .insert(HOST, HeaderValue::from_static("localhost"));
        if let Some(path) = head.uri.path_and_query() {
            head.uri = Uri::from(path.clone());
        }
        let request = hyper::Request::from_parts(head, body);
        Ok(sender.send_request(request).await.map_err(failed)?)
    }
}

impl fmt::Display for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

/// Input and output of a command there. One that ends before it has said anything is an error with the reason that
/// `ssh` gives.
pub(super) struct Connection {
    input: ChildStdin,
    output: ChildStdout,
    failure: Option<BoxFuture<'static, io::Error>>,
    has_read: bool,
    /// Ends when this is dropped.
    _child: Child,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.output).poll_read(cx, buffer))?;
        self.has_read |= buffer.filled().len() > before;
        if self.has_read {
            return Poll::Ready(Ok(()));
        }
        let Some(failure) = &mut self.failure else {
            return Poll::Ready(Ok(()));
        };
        let error = std::task::ready!(failure.poll_unpin(cx));
        self.failure = None;
        Poll::Ready(Err(error))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.input).poll_write(cx, bytes));
        match written {
            // Why nobody reads it is what reading tells.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.has_read => {
                Poll::Ready(Ok(bytes.len()))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_dockers_command() {
        let arguments = |address: &str| {
            let ssh = Ssh::parse(address).expect(address);
            assert_eq!(ssh.to_string(), address.trim_end_matches('/'));
            ssh.arguments()[3..].join(" ")
        };
        assert_eq!(
            arguments("ssh://me@host.example:2222"),
            "-l me -p 2222 -- host.example docker system dial-stdio"
        );
        assert_eq!(
            arguments("ssh://alias/"),
            "-- alias docker system dial-stdio"
        );
        assert_eq!(
            arguments("ssh://[::1]/run/user/1000/docker.sock"),
            "-- ::1 docker --host=unix:///run/user/1000/docker.sock system dial-stdio"
        );
        for wrong in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://me:secret@host",
            "ssh://host/a;b",
            "ssh://host/$(x)",
            "ssh://host?x=1",
            "tcp://host",
        ] {
            assert_eq!(Ssh::parse(wrong), None, "{wrong}");
        }
    }
}

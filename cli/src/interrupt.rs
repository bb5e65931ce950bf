//! Ctrl-C and SIGTERM: the first asks for a tidy end, the second does not wait for it.

use std::io;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Watches for signals from now on: the first cancels the token, the second ends the process. Needs a running
/// runtime. After the watch is aborted, signals go unheard.
pub(crate) fn watch() -> (CancellationToken, JoinHandle<()>) {
    let token = CancellationToken::new();
    let cancel = token.clone();
    let signals = Signals::new();
    let watch = tokio::spawn(async move {
        // Where signals cannot be caught, each ends the process, as it would without us.
        let Ok(mut signals) = signals else {
            return;
        };
        signals.next().await;
        cancel.cancel();
        signals.next().await;
        end();
    });
    (token, watch)
}

#[expect(clippy::exit, reason = "a person who asks twice does not want to wait")]
fn end() {
    std::process::exit(130);
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals(());

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

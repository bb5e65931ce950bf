//! Ctrl-C and SIGTERM: the first asks for a tidy end, the second does not wait for it.

use tokio_util::sync::CancellationToken;

/// Cancels `token` at the first signal, and ends the process at the second.
pub(crate) async fn watch(token: CancellationToken) {
    signal().await;
    token.cancel();
    signal().await;
    end();
}

#[expect(clippy::exit, reason = "a person who asks twice does not want to wait")]
fn end() {
    std::process::exit(130);
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}

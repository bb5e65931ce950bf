//! Running a command to its end.

use std::io;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use imagespec_core::host::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::control::{Report, Request, body_length, frame};
use crate::error::Error;
use crate::job::{Exit, Job, Limit, Tier};
use crate::launch::{Launch, Started};
use crate::scratch::Scratch;

/// The longest line that is handed on whole, in bytes.
const LINE: usize = 8192;

/// Runs `job` without a terminal and with nothing to read, and hands each line of its merged standard output
/// and error to `on_line`: without its end, at most 8 KiB, what is not UTF-8 replaced; of a line that a
/// carriage return overwrites, the last version.
///
/// # Cancellation
/// When `cancel` fires, every process of the sandbox is killed, and its folders are removed before this answers.
/// When the future is dropped, so are they, on a thread: [`settle`] waits for it.
pub async fn run(
    host: &Host,
    job: &Job,
    tier: Tier,
    on_line: &mut (dyn FnMut(&str) + Send),
    cancel: &CancellationToken,
) -> Result<Exit, Error> {
    let (reader, writer) = io::pipe()?;
    let errors = writer.try_clone()?;
    let started = Launch::new(host, job, tier)?.start(|command| {
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
    })?;
    let mut output = pipe::Receiver::from_owned_fd(reader.into())?;
    let (mut control, ending) = split(started)?;
    let report = async { Ok(read_report(&mut control).await) };
    let lines = forward_lines(&mut output, job.limits.output, on_line);
    let finished = async { tokio::try_join!(report, lines) };
    let finished = tokio::select! {
        finished = finished => finished,
        () = cancel.cancelled() => Err(Error::Cancelled),
    };
    ending.wait(control).await?;
    let (report, ()) = finished?;
    outcome(report)
}

/// Runs `job` with the caller's standard streams and terminal, and answers its exit code as a shell would:
/// 128 and the signal's number after a signal, 127 if the program is not found, 126 if it cannot be executed.
///
/// Signals that ask a process to end, and the two for users, are passed on. Those that a terminal sends reach
/// the command by themselves.
pub async fn exec(host: &Host, job: &Job, tier: Tier) -> Result<u8, Error> {
    let signals = Signals::new()?;
    let started = Launch::new(host, job, tier)?
        .interactive()
        .start(|command| {
            command
                .stdin(Stdio::inherit())
                .stdout(Stdio::inherit())
                .stderr(Stdio::inherit());
        })?;
    let (control, ending) = split(started)?;
    let (mut reports, mut requests) = control.into_split();
    let report = read_report(&mut reports);
    let report = tokio::select! {
        report = report => report,
        error = signals.forward(&mut requests) => Err(error),
    };
    ending.wait((reports, requests)).await?;
    Ok(outcome(report)?.code())
}

/// Waits for the sandbox to end and be gone.
pub(crate) async fn finish(started: Started) -> Result<Exit, Error> {
    let (mut control, ending) = split(started)?;
    let report = read_report(&mut control).await;
    ending.wait(control).await?;
    outcome(report)
}

/// The control socket, for async use, and what is left to do at the end. Dropped in this order.
fn split(started: Started) -> Result<(UnixStream, Ending), Error> {
    let Started {
        child,
        control,
        scratch,
    } = started;
    let ending = Ending(Some((child, scratch)));
    control.set_nonblocking(true)?;
    Ok((UnixStream::from_std(control)?, ending))
}

/// What the helper had to say, or why it did not.
pub(crate) fn outcome(report: io::Result<Report>) -> Result<Exit, Error> {
    match report {
        Ok(Report::Ended(exit)) => Ok(exit),
        Ok(Report::Exceeded(limit)) => Err(Error::Limit { limit }),
        Ok(Report::Failed { step, errno: 0 }) => {
            Err(Error::setup(step, io::Error::other("it was refused")))
        }
        Ok(Report::Failed { step, errno }) => {
            Err(Error::setup(step, io::Error::from_raw_os_error(errno)))
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            Err(Error::Lost)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads the helper's one report.
async fn read_report(control: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Report> {
    let mut length = [0; 4];
    control.read_exact(&mut length).await?;
    let mut body = vec![0; body_length(length)?];
    control.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// The helper to reap, and then the folders to remove. Both also happen, on a thread, when it is dropped: the
/// control socket is to be closed by then.
pub(crate) struct Ending(pub(crate) Option<(Child, Scratch)>);

/// The threads of endings that nobody waited for.
static ENDING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits for every sandbox whose future or [`Worker`](crate::Worker) was dropped: its processes are gone then, and
/// its folders removed. What a program does before it ends, as the thread that would do it ends with it.
pub fn settle() {
    let ending = std::mem::take(&mut *ENDING.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in ending {
        // What it panicked with it has said itself.
        let _ = thread.join();
    }
}

impl Ending {
    /// Closes the control socket, which the sandbox takes as the order to stop, and waits until it is gone.
    async fn wait(mut self, control: impl Sized) -> Result<(), Error> {
        drop(control);
        let Some((mut child, scratch)) = self.0.take() else {
            return Ok(());
        };
        let waited = tokio::task::spawn_blocking(move || {
            let waited = child.wait();
            drop(scratch);
            waited
        });
        waited.await.map_err(io::Error::other)??;
        Ok(())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some((mut child, scratch)) = self.0.take() {
            let thread = std::thread::spawn(move || {
                // It has no answer that anyone waits for.
                let _ = child.wait();
                drop(scratch);
            });
            let mut ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
            ending.retain(|thread| !thread.is_finished());
            ending.push(thread);
        }
    }
}

/// Hands on lines until the last writer has closed the pipe, or more than `bound` bytes have come.
async fn forward_lines(
    output: &mut pipe::Receiver,
    bound: Option<u64>,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<(), Error> {
    let mut left = bound.unwrap_or(u64::MAX);
    let mut line = Vec::with_capacity(LINE);
    let mut chunk = vec![0; LINE];
    loop {
        let count = output.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64).ok_or(Error::Limit {
            limit: Limit::Output,
        })?;
        for byte in &chunk[..count] {
            if *byte == b'\n' {
                on_line(&shown(&line));
                line.clear();
            } else {
                line.push(*byte);
                if line.len() == LINE {
                    on_line(&shown(&line));
                    line.clear();
                }
            }
        }
    }
    if !line.is_empty() {
        on_line(&shown(&line));
    }
    Ok(())
}

/// A line as a terminal would leave it.
fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
    String::from_utf8_lossy(last).into_owned()
}

/// Signals that would end the caller, caught while a command runs in its terminal.
struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// Whether a terminal sends interrupt and quit to the command as well.
    terminal: bool,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            terminal: rustix::termios::isatty(rustix::stdio::stdin()),
        })
    }

    /// Passes signals on until the sandbox hears no more.
    async fn forward(mut self, requests: &mut (impl AsyncWriteExt + Unpin)) -> io::Error {
        loop {
            let number = tokio::select! {
                _ = self.interrupt.recv() => (!self.terminal).then_some(libc::SIGINT),
                _ = self.quit.recv() => (!self.terminal).then_some(libc::SIGQUIT),
                _ = self.terminate.recv() => Some(libc::SIGTERM),
                _ = self.hangup.recv() => Some(libc::SIGHUP),
                _ = self.user1.recv() => Some(libc::SIGUSR1),
                _ = self.user2.recv() => Some(libc::SIGUSR2),
            };
            let Some(number) = number else { continue };
            let sent = match frame(&Request::Signal(number)) {
                Ok(frame) => requests.write_all(&frame).await,
                Err(error) => Err(error),
            };
            if sent.is_err() {
                // It is ending; its report is on the way.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_line_is_what_a_terminal_would_leave() {
        assert_eq!(shown(b"10%\r50%\r100%\r"), "100%");
        assert_eq!(shown(b"plain"), "plain");
        assert_eq!(shown(b"\xff!"), "\u{fffd}!");
    }
}

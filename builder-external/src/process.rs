//! One conversation with a program.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use imagespec_core::builder::Capability;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::event::{BuildEvent, Progress};
use imagespec_core::host::Host;
use imagespec_core::protocol::{Answer, Card, Hello, LINE, Request, VERSION};
use serde_json::{Map, Value};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a program may take to say who it is.
const HELLO: Duration = Duration::from_secs(10);
/// How long a program may take to clean up after it was asked to stop.
const GRACE: Duration = Duration::from_secs(8);
/// How many of the last lines of standard error are repeated.
const LINES: usize = 40;
/// How much of a line that is no answer is shown.
const SHOWN: usize = 200;

/// A program that has said who it is.
#[derive(Debug)]
pub(crate) struct Conversation {
    name: String,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    said: JoinHandle<VecDeque<String>>,
    pub(crate) card: Card,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        kill(&mut self.child);
        self.said.abort();
    }
}

impl Conversation {
    /// Starts a program and asks it who it is. `log` takes the lines of its standard error.
    pub(crate) async fn begin(
        name: &str,
        program: &Path,
        host: &Host,
        options: &Map<String, Value>,
        log: impl FnMut(String) + Send + 'static,
    ) -> Result<Self, BuildError> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(&host.variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A person's interrupt reaches it through its standard input, and nothing it starts outlives it.
        #[cfg(unix)]
        command.process_group(0);
        let unable = |error: &std::io::Error| {
            let message = format!(
                "cannot run the program of builder `{name}`: `{}`",
                program.display()
            );
            BuildError::unavailable(message).caused_by(error)
        };
        let mut child = command.spawn().map_err(|error| unable(&error))?;
        let missing = || unable(&std::io::ErrorKind::BrokenPipe.into());
        let requests = child.stdin.take().ok_or_else(missing)?;
        let answers = child.stdout.take().ok_or_else(missing)?;
        let said = child.stderr.take().ok_or_else(missing)?;
        let mut conversation = Self {
            name: name.to_owned(),
            child,
            requests: Some(requests),
            answers: BufReader::new(answers),
            said: tokio::spawn(listen(BufReader::new(said), log)),
            card: Card {
                protocol: VERSION,
                summary: String::new(),
                capabilities: Vec::new(),
                local_output: imagespec_core::context::Output::Store,
            },
        };
        let hello = Request::Hello(Hello {
            protocol: VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cache_dir: host.cache_dir.clone(),
            options: options.clone(),
            registries: host.registries.clone(),
        });
        conversation.send(&hello).await?;
        let answer = tokio::time::timeout(HELLO, conversation.answer()).await;
        let answer = answer.map_err(|_| {
            BuildError::unavailable(format!(
                "builder `{name}` does not say who it is within {} s",
                HELLO.as_secs()
            ))
        })?;
        match answer? {
            Answer::Hello(card) if card.protocol <= VERSION => {
                conversation.card = card;
                Ok(conversation)
            }
            Answer::Hello(card) => Err(BuildError::unavailable(format!(
                "builder `{name}` speaks version {} of the protocol, and this program {VERSION}",
                card.protocol
            ))
            .hint("update imagespec")),
            other => Err(unexpected(name, &other)),
        }
    }

    /// What the builder can do, as far as that means something here.
    pub(crate) fn capabilities(card: &Card) -> impl Iterator<Item = Capability> {
        let known = |name: &String| serde_json::from_value(Value::String(name.clone())).ok();
        card.capabilities.iter().filter_map(known)
    }

    /// Asks for one thing and returns the answer to it. Events go to `progress`. When `cancel` fires, the program is
    /// asked to stop, and killed when it does not.
    pub(crate) async fn ask(
        mut self,
        request: &Request,
        progress: Option<Progress<'_>>,
        cancel: &CancellationToken,
    ) -> Result<Answer, BuildError> {
        self.send(request).await?;
        let answer = cancel.run_until_cancelled(self.result(progress)).await;
        if let Some(answer) = answer {
            return answer;
        }
        self.requests = None;
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        Err(BuildError::interrupted())
    }

    async fn result(&mut self, progress: Option<Progress<'_>>) -> Result<Answer, BuildError> {
        loop {
            match self.answer().await? {
                Answer::Event { event } => {
                    if let Some(progress) = progress {
                        progress.emit(event);
                    }
                }
                answer => {
                    self.requests = None;
                    // It has done its work; what it does now is its own affair.
                    let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
                    return Ok(answer);
                }
            }
        }
    }

    async fn send(&mut self, request: &Request) -> Result<(), BuildError> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| BuildError::failed("cannot write a request").caused_by(&error))?;
        line.push(b'\n');
        if let Some(requests) = &mut self.requests {
            // One that hangs up says why, or ends, which is noticed when it is to answer.
            let _ = requests.write_all(&line).await;
            let _ = requests.flush().await;
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<Answer, BuildError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.answers).take(LINE);
        let read = bounded.read_until(b'\n', &mut line).await;
        if read.unwrap_or_default() == 0 {
            return Err(self.ended().await);
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Error { error }) => Err(error),
            Ok(answer) => Ok(answer),
            Err(error) => {
                let line = format!("{error}: {}", String::from_utf8_lossy(&line).trim_end());
                Err(wrong(&self.name, "answers what is no answer", &line))
            }
        }
    }

    /// Why there is no answer.
    async fn ended(&mut self) -> BuildError {
        let status = tokio::time::timeout(GRACE, self.child.wait()).await;
        let how = match status {
            Ok(Ok(status)) => match status.code() {
                Some(code) => format!("ended with code {code}"),
                None => "was killed".to_owned(),
            },
            _ => "hung up".to_owned(),
        };
        let said = tokio::time::timeout(GRACE, &mut self.said).await;
        let lines = said.ok().and_then(Result::ok).unwrap_or_default();
        let error = BuildError::new(
            ErrorKind::Failed,
            format!("builder `{}` {how} without an answer", self.name),
        );
        if lines.is_empty() {
            return error;
        }
        let said = std::io::Error::other(Vec::from(lines).join("\n"));
        error.caused_by(&said)
    }
}

/// The error of a builder that answers something else than what it was asked.
pub(crate) fn unexpected(name: &str, answer: &Answer) -> BuildError {
    let line = serde_json::to_string(answer).unwrap_or_default();
    wrong(name, "answers something else", &line)
}

fn wrong(name: &str, problem: &str, line: &str) -> BuildError {
    let shown: String = line.chars().take(SHOWN).collect();
    BuildError::failed(format!("builder `{name}` {problem}"))
        .hint("it has a fault; who wrote it will want to know")
        .caused_by(&std::io::Error::other(shown))
}

/// Passes on lines, and returns the last.
async fn listen(
    mut lines: impl AsyncBufRead + Unpin,
    mut log: impl FnMut(String),
) -> VecDeque<String> {
    let mut last = VecDeque::new();
    loop {
        let mut line = Vec::new();
        let read = (&mut lines).take(LINE).read_until(b'\n', &mut line).await;
        if read.unwrap_or_default() == 0 {
            return last;
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        log(line.clone());
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
}

/// Ends a program and all it has started.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    if let Some(id) = child.id()
        && let Some(group) = i32::try_from(id)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
    {
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.start_kill();
}

/// The event of a line that a program wrote to standard error.
pub(crate) fn log_event(name: &str, line: String) -> BuildEvent {
    BuildEvent::Log {
        step: name.to_owned(),
        line,
    }
}

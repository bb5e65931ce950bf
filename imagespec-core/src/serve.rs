//! A builder of Rust as a program of its own: see [`protocol`](crate::protocol).

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::builder::{Builder, BuilderConfig, Capability};
use crate::context::{BuildContext, ContextFiles, SecretMount};
use crate::error::BuildError;
use crate::event::{Event, Progress};
use crate::host::Host;
use crate::login::{IndexLogins, Login};
use crate::protocol::{Answer, Card, Hello, Request, Task, TaskContext, VERSION};
use crate::registry::BuilderEntry;

/// Speaks for a builder on standard input and output until one thing is done: the `main` of a program. `variables` are
/// those of the environment.
pub fn serve(entry: &BuilderEntry, variables: BTreeMap<String, String>) -> ExitCode {
    let home = variables.get("HOME").map(PathBuf::from);
    let host = Host {
        variables,
        home,
        ..Host::default()
    };
    serve_on(entry, host)
}

/// The same where the program says itself what the builder may know of the machine: for one that runs commands in
/// sandboxes. Whoever asks says where caches are, and how registries are reached.
pub fn serve_on(entry: &BuilderEntry, host: Host) -> ExitCode {
    match run(entry, host) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let answered = answer(&Answer::Error { error });
            drop(answered);
            ExitCode::FAILURE
        }
    }
}

fn run(entry: &BuilderEntry, host: Host) -> Result<(), BuildError> {
    let Some(Request::Hello(hello)) = request()? else {
        return Err(BuildError::input("the first line is no hello"));
    };
    let protocol = hello.protocol.min(VERSION);
    let builder = create(entry, hello, host)?;
    let able = builder.capabilities().into_iter();
    let card = Card {
        protocol,
        summary: entry.summary.to_owned(),
        capabilities: able.map(Capability::name).collect(),
        local_output: builder.local_output(),
    };
    answer(&Answer::Hello(card))?;
    let Some(request) = request()? else {
        return Ok(());
    };
    let cancel = CancellationToken::new();
    let watched = cancel.clone();
    // It ends with the process, if not before.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        watched.cancel();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| BuildError::failed("cannot start threads").caused_by(&error))?;
    let done = runtime.block_on(perform(&*builder, request, cancel));
    runtime.shutdown_background();
    answer(&done?)
}

fn create(entry: &BuilderEntry, hello: Hello, host: Host) -> Result<Arc<dyn Builder>, BuildError> {
    let host = Host {
        cache_dir: hello.cache_dir,
        registries: hello.registries,
        ..host
    };
    (entry.create)(BuilderConfig {
        name: entry.name,
        host: &host,
        options: &hello.options,
    })
}

/// Does what a request asks of a builder. What happens in a build is answered as it happens.
pub async fn perform(
    builder: &dyn Builder,
    request: Request,
    cancel: CancellationToken,
) -> Result<Answer, BuildError> {
    match request {
        Request::Hello(_) => Err(BuildError::input("a second hello")),
        Request::Probe => Ok(Answer::Availability {
            availability: builder.probe().await,
        }),
        Request::Find(task) => {
            let Task { plan, context } = *task;
            let parts = Parts::of(context);
            let image = builder.find(&plan, &parts.context(cancel)).await?;
            Ok(Answer::Found { image })
        }
        Request::Build(task) => {
            let Task { plan, context } = *task;
            let parts = Parts::of(context);
            let image = builder.build(&plan, &parts.context(cancel)).await?;
            Ok(Answer::Built { image })
        }
        Request::Tag { image, context } => {
            let parts = Parts::of(*context);
            builder.tag(&image, &parts.context(cancel)).await?;
            Ok(Answer::Tagged)
        }
    }
}

/// What a context borrows.
struct Parts {
    task: TaskContext,
    files: Folder,
    secrets: Vec<SecretMount>,
    logins: IndexLogins,
}

impl Parts {
    fn of(task: TaskContext) -> Self {
        let secret = |secret: &crate::protocol::TaskSecret| SecretMount {
            source: secret.source.clone(),
            target: secret.target.clone(),
        };
        let logins = task.logins.iter().map(|login| Login {
            url: login.url.clone(),
            user: login.user.clone(),
            password: login.password.clone(),
        });
        Self {
            files: Folder(task.files.clone()),
            secrets: task.secrets.iter().map(secret).collect(),
            logins: logins.collect(),
            task,
        }
    }

    fn context(&self, cancel: CancellationToken) -> BuildContext<'_> {
        BuildContext {
            output: &self.task.output,
            destination: &self.task.destination,
            files: &self.files,
            base: self.task.base.as_ref(),
            secrets: &self.secrets,
            logins: &self.logins,
            settings: &self.task.settings,
            progress: Progress::new(&self.task.image, &tell),
            cancel,
        }
    }
}

/// The plan's files in a folder.
#[derive(Debug)]
struct Folder(Option<PathBuf>);

impl ContextFiles for Folder {
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        let folder = self.0.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(fs_err::File::open(folder.join(path))?))
    }
}

fn tell(event: Event) {
    // Nobody listens any more, then.
    let _ = answer(&Answer::Event { event: event.event });
}

fn request() -> Result<Option<Request>, BuildError> {
    let unread = |error: &io::Error| {
        BuildError::unavailable("cannot read what the builder is asked").caused_by(error)
    };
    let mut line = Vec::new();
    let read = io::stdin().lock().read_until(b'\n', &mut line);
    if read.map_err(|error| unread(&error))? == 0 {
        return Ok(None);
    }
    let request = serde_json::from_slice(&line);
    request.map(Some).map_err(|error| unread(&error.into()))
}

/// Writes an answer as a line on standard output.
pub fn answer(answer: &Answer) -> Result<(), BuildError> {
    let write = || -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()
    };
    write().map_err(|error| BuildError::unavailable("nobody takes the answer").caused_by(&error))
}

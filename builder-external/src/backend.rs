//! A program as a builder.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use imagespec_core::builder::{Availability, Builder, BuilderConfig, BuiltImage, CapabilitySet};
use imagespec_core::context::{BuildContext, Output, write_files};
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::Host;
use imagespec_core::plan::BuildPlan;
use imagespec_core::protocol::{Answer, Card, Request, Task, TaskContext};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::find::program;
use crate::process::{Conversation, log_event, unexpected};

/// How long a program may take to say whether it can work.
const PROBE: Duration = Duration::from_mins(1);

/// A builder that is a program of its own.
#[derive(Debug)]
pub struct External {
    name: &'static str,
    program: PathBuf,
    host: Host,
    options: Map<String, Value>,
    card: Card,
}

/// Makes the builder of a name: its program says what it can do.
pub(crate) fn create(config: BuilderConfig<'_>) -> Result<Arc<dyn Builder>, BuildError> {
    let gone =
        || BuildError::unavailable(format!("the builder's program is gone: `{}`", config.name));
    let program = program(config.host, config.name).ok_or_else(gone)?;
    let (name, host, options) = (config.name, config.host.clone(), config.options.clone());
    // Whoever makes builders may be asynchronous and may not.
    let asked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| BuildError::failed("cannot start threads").caused_by(&error))?;
        runtime.block_on(async {
            let hello = Conversation::begin(name, &program, &host, &options, drop).await?;
            let card = hello.card.clone();
            drop(hello);
            Ok(External {
                name,
                program,
                host,
                options,
                card,
            })
        })
    });
    let made = asked.join().unwrap_or_else(|_| Err(gone()))?;
    Ok(Arc::new(made))
}

impl External {
    /// Asks the program for one thing.
    async fn ask(
        &self,
        request: &Request,
        cx: Option<&BuildContext<'_>>,
    ) -> Result<Answer, BuildError> {
        let (sender, mut lines) = mpsc::unbounded_channel();
        let log = move |line| drop(sender.send(line));
        let asked = async {
            let begun =
                Conversation::begin(self.name, &self.program, &self.host, &self.options, log);
            let never = CancellationToken::new();
            let cancel = cx.map_or(&never, |cx| &cx.cancel);
            begun
                .await?
                .ask(request, cx.map(|cx| cx.progress), cancel)
                .await
        };
        let told = async {
            while let Some(line) = lines.recv().await {
                if let Some(cx) = cx {
                    cx.progress.emit(log_event(self.name, line));
                }
            }
        };
        // The lines end with the program, but may go on in what it has started.
        tokio::pin!(asked, told);
        tokio::select! {
            answer = &mut asked => answer,
            () = &mut told => asked.await,
        }
    }

    /// The image as its builder's.
    fn named(&self, image: BuiltImage) -> BuiltImage {
        BuiltImage {
            builder: self.name.to_owned(),
            ..image
        }
    }
}

/// The plan's files in a folder of their own.
fn files(host: &Host, plan: &BuildPlan, cx: &BuildContext<'_>) -> Result<TempDir, BuildError> {
    let write = || -> io::Result<TempDir> {
        fs_err::create_dir_all(&host.cache_dir)?;
        let folder = tempfile::Builder::new()
            .prefix(".context-")
            .tempdir_in(&host.cache_dir)?;
        write_files(&plan.files, cx.files, folder.path())?;
        Ok(folder)
    };
    tokio::task::block_in_place(write).map_err(|error| {
        BuildError::failed("cannot write the files of the build for its builder").caused_by(&error)
    })
}

#[async_trait]
impl Builder for External {
    fn capabilities(&self) -> CapabilitySet {
        Conversation::capabilities(&self.card).collect()
    }

    async fn probe(&self) -> Availability {
        match tokio::time::timeout(PROBE, self.ask(&Request::Probe, None)).await {
            Ok(Ok(Answer::Availability { availability })) => availability,
            Ok(Ok(other)) => Availability::missing(&unexpected(self.name, &other)),
            Ok(Err(error)) => Availability::missing(&error),
            Err(_) => Availability::missing(&BuildError::unavailable(format!(
                "it does not say within {} s whether it can work",
                PROBE.as_secs()
            ))),
        }
    }

    async fn find(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<Option<BuiltImage>, BuildError> {
        let task = Task::of(plan, TaskContext::of(cx, None));
        match self.ask(&Request::Find(Box::new(task)), Some(cx)).await {
            Ok(Answer::Found { image }) => Ok(image.map(|image| self.named(image))),
            Ok(other) => Err(unexpected(self.name, &other)),
            // A program that fails does not know.
            Err(error) if error.kind == ErrorKind::Failed => Err(BuildError {
                kind: ErrorKind::Unknown,
                ..error
            }),
            Err(error) => Err(error),
        }
    }

    async fn build(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
    ) -> Result<BuiltImage, BuildError> {
        let folder = files(&self.host, plan, cx)?;
        let task = Task::of(plan, TaskContext::of(cx, Some(folder.path().to_owned())));
        match self.ask(&Request::Build(Box::new(task)), Some(cx)).await? {
            Answer::Built { image } => Ok(self.named(image)),
            other => Err(unexpected(self.name, &other)),
        }
    }

    async fn tag(&self, image: &BuiltImage, cx: &BuildContext<'_>) -> Result<(), BuildError> {
        let request = Request::Tag {
            image: image.clone(),
            context: Box::new(TaskContext::of(cx, None)),
        };
        match self.ask(&request, Some(cx)).await? {
            Answer::Tagged => Ok(()),
            other => Err(unexpected(self.name, &other)),
        }
    }

    fn local_output(&self) -> Output {
        self.card.local_output.clone()
    }
}

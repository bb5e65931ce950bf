//! Running a command in an image.

use imagespec_builder_native::{Execution, execute};
use imagespec_core::context::Output;
use imagespec_core::error::BuildError;
use imagespec_core::execute::Outcome;
use imagespec_core::platform::Platform;
use imagespec_oci::image::Image;
use imagespec_oci::images::ImageStore;

use super::Context;
use super::build::run;
use super::jobs::work;
use super::resolve::resolve_targets;
use crate::args::ExecArgs;
use crate::env;

/// What runs in an image that has no command of its own.
const SHELL: &str = "bash";

pub(super) async fn exec(
    cx: &Context,
    args: ExecArgs,
    target: String,
    command: Vec<String>,
) -> Result<u8, BuildError> {
    let resolved = resolve_targets(cx, &[target], &args.resolve, &args.how.tags)?;
    if resolved.len() > 1 {
        let names: Vec<_> = resolved.iter().map(|target| target.name.as_str()).collect();
        let message = format!("a command runs in one image, and these are {}", names.len());
        return Err(BuildError::input(message).hint(format!("name one: {}", names.join(", "))));
    }
    let kept = Output::Store;
    let work = work(cx, resolved, &args.how, Some(&kept), false)?;
    let mut results = run(&work, args.how.progress).await;
    let target = work
        .targets
        .first()
        .map(|target| results.swap_remove(*target));
    let Some(Outcome::Done(image)) = target.transpose()? else {
        return Err(BuildError::failed("nothing was built to run a command in"));
    };
    let command = if command.is_empty() && !has_own_command(cx, &image.reference) {
        vec![SHELL.to_owned()]
    } else {
        command
    };
    let execution = Execution {
        reference: image.reference,
        command,
        term: cx.variable(env::TERM).map(str::to_owned),
        lent: Vec::new(),
    };
    execute(&cx.host, &execution).await
}

/// Whether an image of the local store says what runs in it. What cannot be read says nothing here, and why
/// not when it is run.
fn has_own_command(cx: &Context, reference: &str) -> bool {
    let store = ImageStore::open(&cx.host.cache_dir);
    let Ok(Some(record)) = store.find(reference) else {
        return false;
    };
    let image = Image::read(store.blobs(), &record.descriptor.digest, &Platform::host());
    image.is_ok_and(|image| {
        let own = [image.runtime.entrypoint, image.runtime.cmd];
        own.into_iter().flatten().flatten().next().is_some()
    })
}

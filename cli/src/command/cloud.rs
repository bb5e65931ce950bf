//! What is about builder `union` alone: builds that go on without this command.

use imagespec_builder_cloud::{ENTRY, Keeper, NewToken};
use imagespec_core::builder::{BuilderConfig, BuiltImage};
use imagespec_core::context::Output;
use imagespec_core::error::BuildError;
use imagespec_core::registry::Registry;
use serde_json::{Map, Value, json};

use super::jobs::settings;
use super::resolve::ResolvedTarget;
use super::{Context, builders};
use crate::args::{BuildArgs, TokenCommand};
use crate::interrupt;
use crate::report::{Table, print, print_json, reporter};

/// Asks for the builds of targets, and prints their ids.
pub(super) async fn detach(
    cx: &Context,
    targets: &[ResolvedTarget],
    args: &BuildArgs,
) -> Result<u8, BuildError> {
    let registry = Registry::linked()?;
    for target in targets {
        let name = &target.resolved.builder.0;
        if registry.get(name).map(|entry| entry.name) != Ok(ENTRY.name) {
            let message = format!(
                "`--detach` is for builder `{}`, and `{}` is for `{name}`",
                ENTRY.name, target.name
            );
            let hint = format!("`--builder {}` names it", ENTRY.name);
            return Err(BuildError::input(message).field("builder").hint(hint));
        }
        if target.base.is_some() {
            let message = format!(
                "`{}` starts from another image, which has to be there first",
                target.name
            );
            return Err(BuildError::input(message)
                .field("base_image")
                .hint("leave `--detach` out"));
        }
    }
    let settings = settings(cx, &args.how);
    let reporter = reporter(args.how.progress);
    for target in targets {
        let resolved = &target.resolved;
        let build = target.context(&Output::Push, &settings, &*reporter);
        let config = config(cx, &resolved.builder_options);
        let id = imagespec_builder_cloud::submit(config, &resolved.plan, &build).await;
        let wrong = |error: BuildError| error.context(format!("cannot build `{}`", target.name));
        print(&id.map_err(wrong)?)?;
    }
    Ok(0)
}

/// Follows a build, and prints what came of it as `build` does.
pub(super) async fn attach(cx: &Context, id: &str, args: &BuildArgs) -> Result<u8, BuildError> {
    let options = options(cx, &args.select.resolve.options)?;
    let reporter = reporter(args.how.progress);
    let (cancel, watch) = interrupt::watch();
    let config = config(cx, &options);
    let image = imagespec_builder_cloud::attach(config, id, &*reporter, &cancel).await;
    watch.abort();
    let image = image?;
    if args.json {
        print_json(&json!({ "images": [image] }))?;
    } else {
        print(&line(&image))?;
    }
    Ok(0)
}

/// Looks after the tokens of a service.
pub(super) async fn token(
    cx: &Context,
    command: TokenCommand,
    given: &[(String, String)],
) -> Result<u8, BuildError> {
    let options = options(cx, given)?;
    let keeper = Keeper::new(config(cx, &options)).await?;
    match command {
        TokenCommand::Add {
            name,
            scope,
            project,
        } => {
            let new = NewToken {
                name,
                scope,
                project,
            };
            print(&keeper.add(&new).await?.secret)?;
        }
        TokenCommand::List => {
            let mut table = Table::new(["ID", "NAME", "PROJECT", "SCOPE"]);
            for token in keeper.list().await? {
                let scope = token.scope.name().to_owned();
                table.row([token.id, token.name, token.project, scope]);
            }
            print(&table.render())?;
        }
        TokenCommand::Remove { id } => keeper.remove(&id).await?,
    }
    Ok(0)
}

/// The options of the active deployment, and those of flags.
fn options(cx: &Context, given: &[(String, String)]) -> Result<Map<String, Value>, BuildError> {
    let mut options = builders::options(cx)?
        .remove(ENTRY.name)
        .unwrap_or_default();
    let given = given.iter();
    options.extend(given.map(|(key, value)| (key.clone(), Value::String(value.clone()))));
    Ok(options)
}

fn line(image: &BuiltImage) -> String {
    match image.digest {
        Some(digest) => format!("{}@{digest}", image.reference),
        None => image.reference.clone(),
    }
}

fn config<'a>(cx: &'a Context, options: &'a Map<String, Value>) -> BuilderConfig<'a> {
    BuilderConfig {
        name: ENTRY.name,
        host: &cx.host,
        options,
    }
}

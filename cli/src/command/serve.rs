//! The build service.

use imagespec_build_service::{Serving, Settings};
use imagespec_core::error::BuildError;
use imagespec_core::registry::Registry;
use serde_json::Value;

use super::Context;
use crate::args::ServeArgs;
use crate::report::print;
use crate::{env, interrupt};

/// Serves until it is asked to end.
pub(super) async fn serve(cx: &Context, args: ServeArgs) -> Result<u8, BuildError> {
    let settings = settings(cx, args)?;
    let (cancel, watch) = interrupt::watch();
    let serving = Serving::start(settings, &Registry::linked()?, &cx.host).await?;
    print(&format!("listening at http://{}", serving.address))?;
    if let Some(made) = &serving.first_token {
        print("the first token, for everything; it is shown this once:")?;
        print(&made.secret)?;
    }
    let served = serving.run(cancel).await;
    watch.abort();
    served.map(|()| 0)
}

/// The settings of the file that is named, if one is, with what the flags say.
fn settings(cx: &Context, args: ServeArgs) -> Result<Settings, BuildError> {
    let mut settings = match &args.config {
        None => Settings::default(),
        Some(file) => {
            let path = cx.folder.join(file);
            let unread = |error: std::io::Error| {
                let message = format!("cannot read the service's settings: `{}`", file.display());
                BuildError::input(message).caused_by(&error)
            };
            let text = fs_err::read_to_string(&path).map_err(unread)?;
            Settings::read(&text)
                .map_err(|error| error.context(format!("wrong settings: `{}`", file.display())))?
        }
    };
    if let Some(listen) = args.listen {
        settings.listen = listen;
    }
    if let Some(builder) = args.builder {
        settings.builder = builder;
    }
    let given = args.options.into_iter();
    let given = given.map(|(key, value)| (key, Value::String(value)));
    settings.options.extend(given);
    if let Some(workers) = args.workers {
        settings.workers = workers.into();
    }
    let variable = cx.variable(env::DATABASE).map(str::to_owned);
    settings.database = args.database.or(variable).or(settings.database);
    settings.files = args.files.or(settings.files);
    let data = args.data.or(settings.data);
    settings.data = data.map(|folder| cx.folder.join(folder));
    settings.defaults.registries.extend(args.registries);
    settings.defaults.trusted |= args.trusted;
    Ok(settings)
}

//! What the executors `kaniko` and `buildkit` are told to do: the plan as a Dockerfile with its context.

use std::collections::BTreeMap;

use imagespec_core::context::BuildContext;
use imagespec_core::dockerfile::secret::PUBLIC;
use imagespec_core::dockerfile::{Dialect, Start, secret};
use imagespec_core::error::BuildError;
use imagespec_core::plan::BuildPlan;
use imagespec_core::shell;
use imagespec_dockerfile::{Lowered, Site, lower};
use imagespec_oci::delivery::platform;

use crate::backend::Kaniko;
use crate::prepare::Load;
use crate::tools;

impl Kaniko {
    /// What an executor is given that goes by a Dockerfile, for a plan over a base. What is for others has nothing with a login.
    pub(crate) async fn lowered(
        &self,
        plan: &BuildPlan,
        cx: &BuildContext<'_>,
        base: &str,
        for_others: bool,
        dialect: Dialect,
    ) -> Result<Load, BuildError> {
        let platform = platform(plan);
        let mut tools = None;
        if tools::are_wanted(plan) {
            match self.tools(&platform, cx, !for_others).await {
                Ok(image) => tools = Some(image),
                // Who may push the image alone has uv sent with the context.
                Err(error) if cx.cancel.is_cancelled() => return Err(error),
                Err(error) => cx.progress.notice(format!(
                    "uv goes with the context: cannot bring it to the registry: {error}"
                )),
            }
        }
        let site = Site {
            host: &self.host,
            archive: &self.options.archive,
            dialect,
            uv: tools.as_deref(),
        };
        let Lowered {
            file,
            tree,
            doorman,
            secrets: mut lent,
            mut proxies,
        } = lower(site, plan, cx, Start::Image(base)).await?;
        if for_others {
            proxies.retain(|(_, value)| !value.contains('@'));
        }
        lend_proxies(&mut lent, &proxies);
        if for_others {
            lent.retain(|name, _| PUBLIC.iter().any(|(public, _)| public == name));
            proxies.clear();
        }
        Ok(Load {
            image: self.options.image().to_owned(),
            program: None,
            platform,
            tree,
            doorman,
            lent,
            proxies,
            instructions: file.instructions,
        })
    }
}

/// Proxies for what runs in the build: an executor passes no variable on.
fn lend_proxies(lent: &mut BTreeMap<String, Vec<u8>>, proxies: &[(String, String)]) {
    if proxies.is_empty() {
        return;
    }
    let exports = lent.entry(secret::NETWORK.to_owned()).or_default();
    for (name, value) in proxies {
        let value = shell::word(value);
        exports.extend_from_slice(format!("export {name}={value}\n").as_bytes());
    }
}

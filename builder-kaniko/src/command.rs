//! What executor `kaniko` is told.

use std::path::Path;

use imagespec_core::context::{BuildContext, Compression};
use imagespec_core::dockerfile::SECRETS;
use imagespec_core::platform::Platform;

use crate::job::{ARCHIVE, Way};
use crate::options::{Executor, Options};

/// What an executor is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command<'a> {
    pub(crate) cx: &'a BuildContext<'a>,
    pub(crate) options: &'a Options,
    pub(crate) platform: &'a Platform,
    pub(crate) way: Way,
    /// Registries that speak plain HTTP.
    pub(crate) insecure: &'a [String],
    /// Registries with an authority of their own, each with the name of the secret that it is in.
    pub(crate) trusted: &'a [(String, String)],
}

impl Command<'_> {
    /// The flags, in an order that depends on nothing else.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { cx, options, .. } = self;
        let context = match self.way {
            Way::Mounted | Way::Stored => {
                format!("{}/{ARCHIVE}", Executor::Kaniko.places().context)
            }
            Way::Streamed => "stdin".to_owned(),
        };
        let mut arguments = vec![
            format!("--context=tar://{context}"),
            "--dockerfile=Dockerfile".to_owned(),
        ];
        let mut say = |flag: &str, value: &str| arguments.push(format!("--{flag}={value}"));
        for reference in imagespec_oci::delivery::references(cx) {
            say("destination", &reference);
        }
        say("digest-file", "/dev/termination-log");
        say("custom-platform", &self.platform.to_string());
        say("log-format", "json");
        say("log-timestamp", "false");
        say("push-retry", "3");
        say("image-fs-extract-retry", "2");
        say("image-download-retry", "2");
        // Half the memory, for a little time.
        say("compressed-caching", "false");
        say("snapshot-mode", "redo");
        if cx.settings.compression == Some(Compression::Zstd) {
            say("compression", "zstd");
        }
        for (name, value) in &cx.settings.labels {
            say("label", &format!("{name}={value}"));
        }
        for registry in self.insecure {
            say("insecure-registry", registry);
        }
        for (registry, secret) in self.trusted {
            let file = Path::new(SECRETS).join(secret);
            say(
                "registry-certificate",
                &format!("{registry}={}", file.display()),
            );
        }
        for mirror in &options.registry_mirrors {
            say("registry-mirror", mirror);
        }
        let maps: Vec<_> = options
            .registry_maps
            .iter()
            .map(|(from, to)| format!("{from}={to}"))
            .collect();
        if !maps.is_empty() {
            say("registry-map", &maps.join(";"));
        }
        if options.cache && !cx.settings.force {
            say("cache", "true");
            let below = format!("{}/cache", cx.destination.repository());
            say("cache-repo", options.cache_repo.as_ref().unwrap_or(&below));
            if let Some(ttl) = &options.cache_ttl {
                say("cache-ttl", ttl);
            }
        }
        arguments.extend(options.flags.iter().cloned());
        arguments
    }
}

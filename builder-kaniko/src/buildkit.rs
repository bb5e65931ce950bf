//! Executor `buildkit`: `BuildKit` without root and without a daemon that stays, from a Dockerfile whose `RUN`s mount what
//! they are lent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use imagespec_core::context::Compression;
use serde_json::{Value, json};

use crate::assignment::CUT_SHORT;
use crate::job::{ARCHIVE, Command, WORK, Way};
use crate::options::Executor;

/// Whoever `BuildKit` runs as: the user of its image.
pub(crate) const USER: u32 = 1000;
/// The daemon's configuration, among what a build is lent.
pub(crate) const CONFIGURATION: &str = "buildkitd.toml";
/// What stands before the digest when the image is pushed.
pub(crate) const PUSHED: &str = "imagespec: pushed ";

/// The exit code of the container whose daemon does not start.
pub(crate) const NO_DAEMON: i32 = 91;

/// How the container's program begins: a shell, the daemon for as long as the build takes, and its client. The first
/// argument is the context, the others are the client's.
pub(crate) fn command() -> Value {
    let script = format!(
        r#"set -eu
umask 022
work={WORK}
lent={lent}
mkdir -p "$work/context" "$work/tmp"
mkdir -m 700 "$work/run"
export HOME="$work" TMPDIR="$work/tmp" USER=build XDG_DATA_HOME="$work" XDG_RUNTIME_DIR="$work/run"
tar -xzf "$1" -C "$work/context" || {{ echo "{CUT_SHORT}"; exit 90; }}
shift
address="unix://$work/run/buildkitd.sock"
rootlesskit buildkitd --addr "$address" --root "$work/state" --config "$lent/{CONFIGURATION}" \
    --oci-worker-no-process-sandbox > "$work/log" 2>&1 < /dev/null &
daemon=$!
tries=0
until buildctl --addr "$address" debug workers > /dev/null 2>&1; do
    tries=$((tries + 1))
    if ! kill -0 "$daemon" 2> /dev/null || [ "$tries" -gt 300 ]; then
        tail -n 20 "$work/log"
        exit {NO_DAEMON}
    fi
    sleep 0.1
done
buildctl --addr "$address" build --metadata-file "$work/metadata.json" "$@" < /dev/null
digest=$(sed -n 's/.*"containerimage.digest": *"\(sha256:[0-9a-f]*\)".*/\1/p' "$work/metadata.json")
echo "{PUSHED}$digest"
echo "$digest" > /dev/termination-log"#,
        lent = Executor::Buildkit.places().lent,
    );
    json!(["/bin/sh", "-c", script, "build"])
}

/// What the container may do: `BuildKit` makes namespaces of its own, which a runtime's profiles do not let it.
pub(crate) fn rights() -> Value {
    json!({
        "runAsUser": USER,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        // The ids that an image needs are mapped by programs of the setuid kind.
        "allowPrivilegeEscalation": true,
        "seccompProfile": { "type": "Unconfined" },
        "appArmorProfile": { "type": "Unconfined" },
    })
}

impl Command<'_> {
    /// The configuration of the daemon: how registries are reached.
    pub(crate) fn daemon(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let mut tables: BTreeMap<&str, String> = BTreeMap::new();
        for registry in self.insecure {
            tables
                .entry(registry)
                .or_default()
                .push_str("http = true\n");
        }
        for (registry, secret) in self.trusted {
            let file = Path::new(Executor::Buildkit.places().lent).join(secret);
            let file = quoted(&file.to_string_lossy());
            // What is written cannot fail.
            let _ = writeln!(tables.entry(registry).or_default(), "ca = [{file}]");
        }
        let maps = self.options.registry_maps.iter();
        for (registry, mirror) in maps {
            let mirror = quoted(mirror);
            let _ = writeln!(tables.entry(registry).or_default(), "mirrors = [{mirror}]");
        }
        let mirrors: Vec<_> = self
            .options
            .registry_mirrors
            .iter()
            .map(|mirror| quoted(mirror))
            .collect();
        if !mirrors.is_empty() {
            let mirrors = mirrors.join(", ");
            let _ = writeln!(
                tables.entry("docker.io").or_default(),
                "mirrors = [{mirrors}]"
            );
        }
        let mut text = String::new();
        for (registry, settings) in tables {
            let _ = write!(text, "[registry.{}]\n{settings}", quoted(registry));
        }
        text
    }

    /// The arguments of the client, and before them the context, in an order that depends on nothing else. `secrets` are
    /// what the build is lent, by name.
    pub(crate) fn client(&self, secrets: &[String]) -> Vec<String> {
        let Self { cx, options, .. } = self;
        let places = Executor::Buildkit.places();
        let context = match self.way {
            Way::Mounted => format!("{}/{ARCHIVE}", places.context),
            Way::Streamed => "-".to_owned(),
        };
        let mut arguments = vec![context];
        let mut say = |flag: &str, value: &str| arguments.push(format!("--{flag}={value}"));
        say("progress", "rawjson");
        say("frontend", "dockerfile.v0");
        say("local", &format!("context={WORK}/context"));
        say("local", &format!("dockerfile={WORK}/context"));
        say("opt", &format!("platform={}", self.platform));
        for (name, value) in &cx.settings.labels {
            say("opt", &format!("label:{name}={value}"));
        }
        for name in secrets {
            say("secret", &format!("id={name},src={}/{name}", places.lent));
        }
        let names = imagespec_oci::delivery::references(cx).join(",");
        let compression = match cx.settings.compression {
            Some(Compression::Zstd) => "zstd,force-compression=true",
            _ => "gzip",
        };
        say(
            "output",
            &format!(
                "type=image,\"name={names}\",push=true,oci-mediatypes=true,compression={compression}"
            ),
        );
        if options.cache && !cx.settings.force {
            let below = format!("{}/cache", cx.destination.repository());
            let cache = options.cache_repo.as_ref().unwrap_or(&below);
            say("import-cache", &format!("type=registry,ref={cache}"));
            say(
                "export-cache",
                &format!("type=registry,ref={cache},mode=max"),
            );
        }
        arguments.extend(options.flags.iter().cloned());
        arguments
    }
}

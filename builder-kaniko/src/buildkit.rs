//! Executor `buildkit`: `BuildKit` without root and without a daemon that stays, from a Dockerfile whose `RUN`s mount what
//! they are lent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use imagespec_core::context::Compression;
use serde_json::{Value, json};

use crate::assignment::CUT_SHORT;
use crate::command::Command;
use crate::job::{ARCHIVE, WORK, Way};
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
# A volume for a group hands that on to whatever is made in it, and so it would come into the image.
chmod g-s "$work/context"
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
        // What is written into a text cannot fail.
        for registry in self.insecure {
            let _ = writeln!(tables.entry(registry).or_default(), "http = true");
        }
        for (registry, secret) in self.trusted {
            let file = Path::new(Executor::Buildkit.places().lent).join(secret);
            let file = quoted(&file.to_string_lossy());
            let _ = writeln!(tables.entry(registry).or_default(), "ca = [{file}]");
        }
        let mut mirrors: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (registry, mirror) in &self.options.registry_maps {
            mirrors.entry(registry).or_default().push(quoted(mirror));
        }
        for mirror in &self.options.registry_mirrors {
            mirrors.entry("docker.io").or_default().push(quoted(mirror));
        }
        for (registry, mirrors) in mirrors {
            let mirrors = mirrors.join(", ");
            let _ = writeln!(tables.entry(registry).or_default(), "mirrors = [{mirrors}]");
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
            Way::Mounted | Way::Stored => format!("{}/{ARCHIVE}", places.context),
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

#[cfg(test)]
mod tests {
    use imagespec_core::context::{BuildContext, BuildSettings, ContextFiles, Destination, Output};
    use imagespec_core::event::{Progress, Silent};
    use imagespec_core::login::IndexLogins;
    use imagespec_core::platform::Platform;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::options::Options;

    /// A context without files.
    #[derive(Debug)]
    struct NoFiles;

    impl ContextFiles for NoFiles {
        fn open(&self, _: &str) -> std::io::Result<Box<dyn std::io::Read + Send>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    #[test]
    fn a_daemon_and_its_client_are_told_of_registries_secrets_and_caches() {
        let options = json!({
            "executor": "buildkit",
            "registry_mirrors": ["mirror.example"],
            "registry_maps": { "docker.io": "hub.example", "quay.example": "q.example" },
            "cache": true,
            "flags": ["--opt=build-arg:A=b"],
        });
        let options = Options::read(options.as_object().expect("options")).expect("options");
        let destination = Destination {
            registry: Some("registry.example/team".to_owned()),
            pull_registry: None,
            name: "app".to_owned(),
            tag: "1".to_owned(),
            extra_tags: vec!["v1".to_owned()],
        };
        let settings = BuildSettings {
            compression: Some(Compression::Zstd),
            labels: [("team".to_owned(), "m l".to_owned())].into(),
            ..BuildSettings::default()
        };
        let cx = BuildContext {
            output: &Output::Push,
            destination: &destination,
            files: &NoFiles,
            base: None,
            secrets: &[],
            logins: &IndexLogins::default(),
            settings: &settings,
            progress: Progress::new("app", &Silent),
            cancel: CancellationToken::new(),
        };
        let command = Command {
            cx: &cx,
            options: &options,
            platform: &Platform::amd64(),
            way: Way::Mounted,
            insecure: &["localhost:5000".to_owned()],
            trusted: &[("registry.example".to_owned(), "ca.pem".to_owned())],
        };
        let daemon = "[registry.\"docker.io\"]\nmirrors = [\"hub.example\", \"mirror.example\"]\n\
             [registry.\"localhost:5000\"]\nhttp = true\n\
             [registry.\"quay.example\"]\nmirrors = [\"q.example\"]\n\
             [registry.\"registry.example\"]\nca = [\"/imagespec/lent/ca.pem\"]\n";
        assert_eq!(command.daemon(), daemon);
        let client = [
            "/imagespec/context/context.tar.gz",
            "--progress=rawjson",
            "--frontend=dockerfile.v0",
            "--local=context=/imagespec/work/context",
            "--local=dockerfile=/imagespec/work/context",
            "--opt=platform=linux/amd64",
            "--opt=label:team=m l",
            "--secret=id=imagespec-index,src=/imagespec/lent/imagespec-index",
            "--output=type=image,\"name=registry.example/team/app:1,registry.example/team/app:v1\",push=true,\
             oci-mediatypes=true,compression=zstd,force-compression=true",
            "--import-cache=type=registry,ref=registry.example/team/app/cache",
            "--export-cache=type=registry,ref=registry.example/team/app/cache,mode=max",
            "--opt=build-arg:A=b",
        ];
        assert_eq!(command.client(&["imagespec-index".to_owned()]), client);
    }
}

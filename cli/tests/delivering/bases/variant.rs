//! Bases that others would have made: an image of ours, changed by tools that are not.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{Place, has};
use crate::registry::Served;

/// An image in a registry, and what is made of it.
pub(crate) struct Ground {
    pub(crate) served: Served,
    folder: TempDir,
}

impl Ground {
    /// A Debian base with a package, made here and pushed as `ground:1`; without the programs for it there is no
    /// test.
    pub(crate) fn new() -> Option<Self> {
        if !["docker-registry", "skopeo", "umoci", "curl"]
            .into_iter()
            .all(has)
        {
            return None;
        }
        let ground = Self {
            served: Served::new(&[]),
            folder: tempfile::tempdir().expect("a folder"),
        };
        ground.built("ground", &[]);
        ground.copy("docker://{}/ground:1", "oci:{}/oci:ground", &[]);
        Some(ground)
    }

    /// Builds the same with further arguments, and pushes it as `NAME:1`.
    pub(crate) fn built(&self, name: &str, arguments: &[&str]) {
        let place = Place::new(&format!(
            "[images.{name}]\npackages = [\"six\"]\nregistry = \"{}\"\n",
            self.served.address
        ));
        place.builds(&[&["--no-bytecode", "--tag", "1"], arguments].concat());
    }

    /// The name of an image in the registry.
    pub(crate) fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.served.address)
    }

    /// Copies with skopeo; `{}` is the registry, or where layouts are.
    fn copy(&self, from: &str, to: &str, arguments: &[&str]) {
        let fill = |text: &str| {
            let place = if text.starts_with("docker:") {
                self.served.address.clone()
            } else {
                self.folder.path().display().to_string()
            };
            text.replace("{}", &place)
        };
        let mut command = Command::new("skopeo");
        command.args([
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ]);
        done(command.args(arguments).args([fill(from), fill(to)]));
    }

    /// Pushes the ground in another form.
    pub(crate) fn reformed(&self, name: &str, arguments: &[&str]) {
        self.copy(
            "oci:{}/oci:ground",
            &format!("docker://{{}}/{name}"),
            arguments,
        );
    }

    /// Pushes the ground with a layer of files and another configuration. A file whose name ends in `*` is a
    /// program.
    pub(crate) fn changed(&self, name: &str, files: &[(&str, &str)], settings: &[&str]) {
        let layer = self
            .folder
            .path()
            .join(format!("{}.layer", name.replace([':', '/'], "-")));
        for (path, content) in files {
            let file = layer.join(path.trim_end_matches('*'));
            fs_err::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs_err::write(&file, content).expect("a file");
            let mode = if path.ends_with('*') { "755" } else { "644" };
            done(Command::new("chmod").arg(mode).arg(&file));
        }
        let tar = layer.with_extension("tar");
        let mut command = Command::new("tar");
        command.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]);
        done(command.arg(&tar).arg("-C").arg(&layer).arg("."));
        self.copy("oci:{}/oci:ground", "oci:{}/oci:changed", &[]);
        let image = format!("{}:changed", self.folder.path().join("oci").display());
        done(
            Command::new("umoci")
                .args(["raw", "add-layer", "--image", &image])
                .arg(&tar),
        );
        if !settings.is_empty() {
            done(
                Command::new("umoci")
                    .args(["config", "--image", &image])
                    .args(settings),
            );
        }
        self.copy("oci:{}/oci:changed", &format!("docker://{{}}/{name}"), &[]);
    }

    /// Pushes an image of nothing but what is in a folder.
    pub(crate) fn scratch(&self, name: &str, root: &Path, settings: &[&str]) {
        let tar = self.folder.path().join("scratch.tar");
        let mut command = Command::new("tar");
        command.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]);
        done(command.arg(&tar).arg("-C").arg(root).arg("."));
        let layout = self.folder.path().join("scratch");
        let image = format!("{}:image", layout.display());
        let umoci = |arguments: &[&str]| {
            let mut command = Command::new("umoci");
            command.args(arguments);
            command
        };
        done(umoci(&["init", "--layout"]).arg(&layout));
        done(&mut umoci(&["new", "--image", &image]));
        done(umoci(&["raw", "add-layer", "--image", &image]).arg(&tar));
        if !settings.is_empty() {
            done(umoci(&["config", "--image", &image]).args(settings));
        }
        self.copy(
            "oci:{}/scratch:image",
            &format!("docker://{{}}/{name}"),
            &[],
        );
    }

    /// Pushes an index of one image for this platform and of one for another, which is not there.
    pub(crate) fn indexed(&self, repository: &str, tag: &str) {
        let manifest = self.manifest(repository, tag);
        let size = manifest.len();
        let path = self.folder.path().join("manifest.json");
        let digest = written(&path, &manifest);
        let one = |digest: &str, architecture: &str| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{digest}"),
                "size": size,
                "platform": {"os": "linux", "architecture": architecture},
            })
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [one(&digest, "unknown"), one(&digest, "amd64")],
        });
        fs_err::write(&path, index.to_string()).expect("a file");
        self.put(&path, &format!("{repository}/manifests/index"));
    }

    /// Pushes the ground with triggers, as Docker's images have them.
    pub(crate) fn onbuild(&self, name: &str, triggers: &[&str]) {
        self.copy("oci:{}/oci:ground", "dir:{}/onbuild", &["--format", "v2s2"]);
        let folder = self.folder.path().join("onbuild");
        let read = |name: &str| -> Value {
            let text = fs_err::read(folder.join(name)).expect("a document");
            serde_json::from_slice(&text).expect("JSON")
        };
        let mut manifest = read("manifest.json");
        let digest = manifest["config"]["digest"].as_str().expect("a digest");
        let mut config = read(digest.trim_start_matches("sha256:"));
        config["config"]["OnBuild"] = json!(triggers);
        let config = config.to_string().into_bytes();
        let digest = written(&folder.join("config"), &config);
        fs_err::rename(folder.join("config"), folder.join(&digest)).expect("a configuration");
        manifest["config"]["digest"] = format!("sha256:{digest}").into();
        manifest["config"]["size"] = config.len().into();
        written(
            &folder.join("manifest.json"),
            manifest.to_string().as_bytes(),
        );
        self.copy("dir:{}/onbuild", &format!("docker://{{}}/{name}"), &[]);
    }

    fn put(&self, file: &Path, address: &str) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--request", "PUT", "--header"]);
        command.arg("Content-Type: application/vnd.oci.image.index.v1+json");
        command
            .arg("--data-binary")
            .arg(format!("@{}", file.display()));
        done(command.arg(format!("http://{}/v2/{address}", self.served.address)));
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail", "--location"]);
        for kind in ["oci.image.manifest.v1", "docker.distribution.manifest.v2"] {
            command
                .arg("--header")
                .arg(format!("Accept: application/vnd.{kind}+json"));
        }
        let output = command
            .arg(format!("http://{}/v2/{path}", self.served.address))
            .output();
        let output = output.expect("curl");
        assert!(output.status.success(), "{path}: {output:?}");
        output.stdout
    }

    fn manifest(&self, repository: &str, tag: &str) -> Vec<u8> {
        self.get(&format!("{repository}/manifests/{tag}"))
    }

    /// The layers of an image: media type and digest of each.
    pub(crate) fn layers(&self, repository: &str, tag: &str) -> Vec<(String, String)> {
        let manifest = self.manifest(repository, tag);
        let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        layers
            .map(|layer| (text(&layer["mediaType"]), text(&layer["digest"])))
            .collect()
    }

    /// How an image is run.
    pub(crate) fn runtime(&self, repository: &str, tag: &str) -> Value {
        let manifest = self.manifest(repository, tag);
        let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
        let digest = manifest["config"]["digest"].as_str().expect("a digest");
        let config = self.get(&format!("{repository}/blobs/{digest}"));
        let mut config: Value = serde_json::from_slice(&config).expect("a configuration");
        config["config"].take()
    }
}

/// Writes a file. Returns its SHA-256.
fn written(path: &Path, content: &[u8]) -> String {
    fs_err::write(path, content).expect("a file");
    let output = Command::new("sha256sum").arg(path).output();
    String::from_utf8_lossy(&output.expect("a digest").stdout)[..64].to_owned()
}

fn done(command: &mut Command) {
    let output = command.output().expect("a program");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

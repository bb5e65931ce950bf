//! What an image starts from: an image of a registry, whoever made it.

use std::io::Read as _;
use std::process::Stdio;

use imagespec_core::contract::{DEFAULT_PATH, USER_ID, USER_SHELL};
use imagespec_core::digest::Digest;
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_debian::base as debian;
use imagespec_oci::cache::Layer;
use imagespec_oci::image::{Document, Image, Runtime, layer_media_type};
use imagespec_oci::registry::{Pull, RegistryError};
use imagespec_oci::{Reference, Registry};
use imagespec_sandbox::{Job, Network, spawn};

use crate::accounts;
use crate::assemble::{Assembly, Draft};
use crate::deliver::mounts;
use crate::inspect::{Facts, Found, Inspection, Part};
use crate::layers::store_error;
use crate::provenance::{Foundation, Packages, System};
use crate::recipe::{Interpreter, LazyLayer, Origin, Recipe};
use crate::triggers;

/// The longest that an interpreter may say of itself, in bytes.
const ANSWER: u64 = 8 << 10;
/// What an interpreter is asked: implementation, minor version, flags of its ABI, where it is,
/// whether packages are somebody else's to install.
const QUESTION: &str = "import os, sys, sysconfig\nprint(sys.implementation.name, sys.version_info[0], \
     sys.version_info[1], getattr(sys, 'abiflags', '') or '-', \
     os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable), \
     os.path.exists(os.path.join(sysconfig.get_path('stdlib'), 'EXTERNALLY-MANAGED')), sep='\\n')";

impl Assembly<'_> {
    /// The base that a reference names. Of its layers only those are fetched that nobody has looked into yet.
    pub(crate) async fn reference(
        &self,
        text: &str,
        platform: &Platform,
    ) -> Result<Draft, BuildError> {
        let title = format!("base {text} for {platform}");
        let step = self.cx.progress.step(format!("base {platform}"), title);
        let named = self
            .named
            .get_or_try_init(|| resolve(&self.native.host, text))
            .await?;
        let (manifest, image) = self.read_base(named, platform).await?;
        let origin = Origin::Registry {
            registry: named.registry.clone(),
            repository: named.repository.clone(),
        };
        let base = (manifest, image);
        let (draft, known) = self.look_into(text, base, &origin, platform).await?;
        step.finish(known, format!("{}", named.digest.unwrap_or(manifest)));
        Ok(draft)
    }

    /// What stands on an image that was made elsewhere: its manifest, what it says, and where its layers are had. Says
    /// whether somebody looked into it before.
    pub(crate) async fn look_into(
        &self,
        text: &str,
        (mut manifest, mut image): (Digest, Image),
        origin: &Origin,
        platform: &Platform,
    ) -> Result<(Draft, bool), BuildError> {
        let triggers = triggers::take(&mut image.runtime);
        let mut layers = image
            .layers
            .iter()
            .map(|layer| base_layer(origin, layer))
            .collect::<Result<Vec<_>, _>>()?;
        let runtime = &image.runtime;
        let (mut facts, known) = self.facts(manifest, &layers, runtime, platform).await?;
        if !triggers.is_empty() {
            let base = (&layers[..], image.runtime);
            let triggered = self
                .trigger(&triggers, manifest, base, &facts, platform)
                .await?;
            (manifest, layers) = (triggered.digest, triggered.layers);
            image.runtime = triggered.runtime;
            let runtime = &image.runtime;
            facts = self.facts(manifest, &layers, runtime, platform).await?.0;
        }
        let (accounts, user) = accounts::with_user(&facts)?;
        let foundation = Foundation {
            user,
            ..self.foundation(&facts, manifest, &layers, platform)?
        };
        let mut draft = Draft {
            platform: platform.clone(),
            layers,
            runtime: image.runtime,
            foundation,
        };
        if let Some(files) = accounts {
            let recipe = draft.owned(Recipe::Accounts(files));
            self.add(&mut draft, recipe).await?;
        }
        self.warn(&facts, text);
        Ok((draft, known))
    }

    /// The manifest and the image of a base for a platform: what is here, else from the registry.
    async fn read_base(
        &self,
        named: &Reference,
        platform: &Platform,
    ) -> Result<(Digest, Image), BuildError> {
        let blobs = self.native.store.blobs();
        let field = |error: RegistryError| match error {
            RegistryError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
                BuildError::input("the base image is not for this platform")
                    .field("platform")
                    .caused_by(&error)
            }
            RegistryError::Platform { .. } => BuildError::from(error).field("platform"),
            error => BuildError::from(error).field("base_image"),
        };
        let noted = &mounts(self.native);
        let here = named
            .digest
            .and_then(|digest| self.stored(&digest, platform));
        let (manifest, image) = if let Some(found) = here {
            for layer in &found.1.layers {
                noted.holds(&named.registry, &named.repository, &layer.digest);
            }
            // A note that cannot be kept costs time, later.
            let _ = noted.save(&named.registry);
            found
        } else {
            let registry = Registry::new(&self.native.host, &named.registry).map_err(field)?;
            let pull = Pull {
                store: blobs,
                reference: named,
                platform,
                layers: false,
                mounts: noted,
                parallelism: 1,
                progress: &|_| (),
                cancel: &self.cx.cancel,
            };
            let descriptor = registry.pull_image(pull).await.map_err(field)?;
            let image = Image::read(blobs, &descriptor.digest, platform)
                .map_err(|error| store_error(&error))?;
            (descriptor.digest, image)
        };
        Ok((manifest, image))
    }

    /// The manifest and the image of a document in the store, if all is there.
    fn stored(&self, digest: &Digest, platform: &Platform) -> Option<(Digest, Image)> {
        let blobs = self.native.store.blobs();
        let manifest = match Document::read(blobs, digest).ok()? {
            Document::Manifest(_) => *digest,
            Document::Index(index) => index.select(platform).ok()?.digest,
        };
        let image = Image::read(blobs, &manifest, platform).ok()?;
        (image.platform == *platform).then_some((manifest, image))
    }

    /// What a base holds: as it is known, or found out now. Says whether it was known.
    pub(crate) async fn facts(
        &self,
        manifest: Digest,
        lazy: &[LazyLayer],
        runtime: &Runtime,
        platform: &Platform,
    ) -> Result<(Facts, bool), BuildError> {
        let layers: Vec<_> = lazy.iter().map(|lazy| lazy.layer.clone()).collect();
        let inspection = Inspection {
            host: &self.native.host,
            manifest,
            layers: &layers,
            runtime,
            python: self.plan.python.exec.as_deref(),
        };
        if let Some(facts) = inspection.known() {
            return Ok((facts, true));
        }
        self.ensure(lazy, &|_| true).await?;
        let store = &self.native.store;
        let mut facts = tokio::task::block_in_place(|| inspection.look(store))?;
        if let Some(found) = &mut facts.python
            && found.minor.is_none()
        {
            *found = self.ask(lazy, found, platform).await?;
        }
        inspection
            .keep(&facts)
            .map_err(|error| store_error(&error))?;
        Ok((facts, false))
    }

    /// Runs an interpreter to learn what it is.
    async fn ask(
        &self,
        layers: &[LazyLayer],
        found: &Found,
        platform: &Platform,
    ) -> Result<Found, BuildError> {
        let wrong = |problem: &str| {
            BuildError::input(format!(
                "the Python of the base image {problem}: `{}`",
                found.program
            ))
            .field("base_image")
            .hint("name an interpreter of the base with `python_exec`")
        };
        if !platform.is_host() {
            return Err(wrong(
                "has to be run to tell its version, and this machine cannot",
            ));
        }
        let host = &self.native.host;
        let tier = imagespec_sandbox::tier(host).await.map_err(|unsupported| {
            BuildError::from(imagespec_sandbox::Error::from(unsupported)).field("base_image")
        })?;
        let job = Job {
            env: vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())],
            network: Network::Isolated,
            limits: self.native.limits,
            ..Job::new(
                self.snapshots(layers, &|_| true, tier).await?,
                [found.program.as_str(), "-I", "-c", QUESTION],
            )
        };
        let said = tokio::task::block_in_place(|| -> Result<String, BuildError> {
            let mut worker = spawn(host, &job, tier, Stdio::null())?;
            let mut said = Vec::new();
            if let Some(stdout) = worker.stdout.take() {
                stdout
                    .take(ANSWER)
                    .read_to_end(&mut said)
                    .map_err(|error| wrong("does not answer").caused_by(&error))?;
            }
            if !worker.wait()?.success() {
                return Err(wrong("does not run"));
            }
            Ok(String::from_utf8_lossy(&said).into_owned())
        })?;
        let lines: Vec<_> = said.lines().collect();
        match lines[..] {
            ["cpython", "3", minor, flags, program, managed]
                if !flags.contains('t') && program.starts_with('/') =>
            {
                Ok(Found {
                    program: program.to_owned(),
                    minor: minor.parse().ok(),
                    managed: managed == "True",
                })
            }
            [implementation, major, minor, ..] => Err(wrong(&format!(
                "is none that wheels are made for, {implementation} {major}.{minor}"
            ))),
            _ => Err(wrong("does not say what it is")),
        }
    }

    /// What the packages of an image over this base stand on.
    fn foundation(
        &self,
        facts: &Facts,
        manifest: Digest,
        layers: &[LazyLayer],
        platform: &Platform,
    ) -> Result<Foundation, BuildError> {
        let wanted = self.plan.python.exec.as_deref();
        if let (Some(path), None) = (wanted, &facts.python) {
            return Err(BuildError::input(format!(
                "the base image has no program at the path of `python_exec`: `{path}`"
            ))
            .field("python_exec")
            .hint("name the absolute path of an interpreter of the base"));
        }
        let python = facts.python.as_ref().and_then(|found| {
            Some(Interpreter {
                program: found.program.clone(),
                minor: found.minor?,
                layers: layers.iter().map(|lazy| lazy.layer.diff_id).collect(),
            })
        });
        let managed = facts.python.as_ref().is_some_and(|found| found.managed);
        let packages = if facts.parts.contains(&Part::Database) {
            Packages::Theirs {
                base: manifest,
                layers: layers.len(),
                apt: facts.parts.contains(&Part::Apt),
            }
        } else {
            Packages::None
        };
        let shells = [(Part::Bash, USER_SHELL), (Part::Shell, "/bin/sh")];
        let shell = shells.iter().find(|(part, _)| facts.parts.contains(part));
        let shell = shell.map(|(_, path)| *path);
        let architecture = debian::architecture(platform).unwrap_or_default();
        Ok(Foundation {
            system: System {
                distribution: facts.distribution.clone(),
                suite: facts.suite.clone(),
                architecture: architecture.to_owned(),
                packages,
                shell: shell.map(str::to_owned),
            },
            python,
            libc: facts.libc,
            user: (USER_ID, USER_ID),
            // Whoever wrote it says where its packages are fetched.
            conda: facts.conda.clone().filter(|_| !self.native.host.strangers),
            has_conda: facts.parts.contains(&Part::Conda),
            venv: facts.parts.contains(&Part::Venv),
            system_site_packages: managed || wanted.is_some(),
        })
    }

    /// Says what tasks may miss.
    fn warn(&self, facts: &Facts, text: &str) {
        let mut missing = Vec::new();
        if !facts.parts.contains(&Part::Bash) {
            missing.push("no `/bin/bash`");
        }
        if !facts.parts.contains(&Part::Authorities) {
            missing.push("no authorities for TLS");
        }
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            let progress = self.cx.progress;
            progress.notice(format!("the base image `{text}` has {missing}"));
        }
    }
}

/// A layer of a base, as it is.
fn base_layer(origin: &Origin, layer: &Layer) -> Result<LazyLayer, BuildError> {
    let media_type = layer_media_type(&layer.media_type).map_err(|error| {
        BuildError::input("a layer of the base image cannot be read")
            .field("base_image")
            .caused_by(&error)
    })?;
    Ok(LazyLayer {
        layer: Layer {
            media_type: media_type.to_owned(),
            ..layer.clone()
        },
        origin: origin.clone(),
    })
}

/// Asks the registry what a tag stands for; a digest stands for itself.
pub(crate) async fn resolve(host: &Host, text: &str) -> Result<Reference, BuildError> {
    let parsed = text.trim().parse::<Reference>();
    let reference = parsed.map_err(|error| BuildError::from(error).field("base_image"))?;
    if reference.digest.is_some() {
        return Ok(reference);
    }
    let field = |error| BuildError::from(error).field("base_image");
    let registry = Registry::new(host, &reference.registry).map_err(field)?;
    let identifier = reference.identifier();
    let digest = Box::pin(registry.head_manifest(&reference.repository, &identifier))
        .await
        .map_err(field)?
        .ok_or_else(|| field(RegistryError::NotFound(reference.to_string())))?;
    Ok(reference.with_digest(digest))
}

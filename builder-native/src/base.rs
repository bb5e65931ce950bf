//! What an image starts from: our own Debian base, an image built before, or one of a registry.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use imagespec_core::builder::BuiltImage;
use imagespec_core::context::Output;
use imagespec_core::contract::{USER_ID, USER_SHELL};
use imagespec_core::digest::Framed;
use imagespec_core::error::BuildError;
use imagespec_core::plan::Base;
use imagespec_core::platform::Platform;
use imagespec_core::resolve::python_of_suite;
use imagespec_debian::{Archive, Package, base as debian, layers};
use imagespec_oci::Reference;
use imagespec_oci::image::{Document, Image, Runtime};
use imagespec_oci::store::write_atomically;
use imagespec_python::lock::Libc;
use imagespec_python::standalone;

use crate::assemble::{Assembly, Draft};
use crate::deliver::megabytes;
use crate::layers::store_error;
use crate::provenance::{Foundation, Packages, Provenance, System};
use crate::recipe::{Interpreter, LazyLayer, Origin, Recipe};

/// How long the packages of a base are taken from what was resolved before.
const FRESH: Duration = Duration::from_hours(24);
/// glibc of the Debian releases we know.
const GLIBC: [(&str, Libc); 3] = [
    ("bullseye", Libc::Glibc(2, 31)),
    ("bookworm", Libc::Glibc(2, 36)),
    ("trixie", Libc::Glibc(2, 41)),
];

/// How our own base is run.
fn ours() -> Runtime {
    Runtime {
        cmd: Some(vec!["/bin/bash".to_owned()]),
        ..Runtime::default()
    }
}

impl Assembly<'_> {
    pub(crate) async fn base(&self, platform: &Platform) -> Result<Draft, BuildError> {
        let made = self.cx.base.filter(|_| self.native.host.contained);
        let mut draft = match (&self.plan.base, made) {
            (base, Some(made))
                if self.plan.has_conda() || !matches!(base, Base::Reference { .. }) =>
            {
                self.given(made, platform).await?
            }
            (Base::Debian { suite }, _) => self.debian(suite, platform).await?,
            (Base::Image { .. }, _) => self.image(platform).await?,
            (Base::Reference { reference }, _) => {
                let draft = self.reference(reference, platform).await;
                draft.map_err(|error| {
                    error.context(format!("cannot start from the `base_image` `{reference}`"))
                })?
            }
        };
        if !matches!(self.plan.base, Base::Reference { .. }) {
            self.check_exec(&mut draft.foundation)?;
        }
        self.check_version(&draft.foundation)?;
        Ok(draft)
    }

    /// An interpreter that is named must be the one there is.
    fn check_exec(&self, foundation: &mut Foundation) -> Result<(), BuildError> {
        let Some(path) = &self.plan.python.exec else {
            return Ok(());
        };
        let program = &foundation.interpreter()?.program;
        let folder = program.rsplit_once('/').map_or("", |(folder, _)| folder);
        if path != program && *path != format!("{folder}/python3") {
            return Err(BuildError::input(format!(
                "the `python_exec` is not in the image that this one starts from: `{path}`"
            ))
            .field("python_exec")
            .hint(format!("its own is `{program}`")));
        }
        if foundation.venv && !foundation.system_site_packages {
            return Err(BuildError::input(
                "the image that this one starts from has a virtual environment, which `python_exec` cannot change",
            )
            .field("python_exec")
            .hint("name it in the first image"));
        }
        foundation.system_site_packages = true;
        Ok(())
    }

    /// A version of Python that is named must be the one there is.
    fn check_version(&self, foundation: &Foundation) -> Result<(), BuildError> {
        let Some(wanted) = &self.plan.python.version else {
            return Ok(());
        };
        if self.plan.has_conda() {
            // It is that of the Conda environment, which has no other.
            return Ok(());
        }
        let minor: Vec<_> = wanted.split('.').take(2).collect();
        let found = foundation.python.as_ref();
        if found.is_some_and(|found| found.version() == minor.join(".")) {
            return Ok(());
        }
        let found = found.map_or_else(
            || "none".to_owned(),
            |found| format!("{} at `{}`", found.version(), found.program),
        );
        Err(BuildError::input(format!(
            "the base image has no Python of the `python_version` `{wanted}`: {found}"
        ))
        .field("python_version")
        .hint("leave `python_version` out to use that of the base")
        .hint("name another interpreter of the base with `python_exec`, or another `base_image`"))
    }

    async fn debian(&self, suite: &str, platform: &Platform) -> Result<Draft, BuildError> {
        let architecture = debian::architecture(platform).ok_or_else(|| {
            BuildError::input(format!("Debian is not made for the platform `{platform}`"))
                .field("platform")
        })?;
        let step = self.cx.progress.step(
            format!("base {platform}"),
            format!("Debian {suite} for {platform}"),
        );
        let archive = self.archive()?;
        let standalone = self.plan.standalone_python();
        let own = standalone.is_none() && !self.plan.has_conda();
        let packages = self
            .base_packages(&archive, suite, architecture, own)
            .await?;
        let recipes = layers::group(&packages).into_iter().map(Recipe::Debian);
        let recipes = recipes.chain([Recipe::State(packages.clone())]);
        let recipes = recipes
            .map(|recipe| (self.key(&[], &recipe), recipe))
            .collect();
        let found = async {
            match standalone {
                Some(version) => self.standalone(version, platform).await.map(Some),
                None => Ok(None),
            }
        };
        let ((mut made, cached), found) = tokio::try_join!(self.layers(&[], recipes), found)?;
        step.finish(cached, format!("{} packages", packages.len()));
        let (prefix, version) = if let Some(python) = found {
            let recipe = Recipe::Standalone(python);
            let (layer, _) = self.layer(&[], self.key(&[], &recipe), recipe).await?;
            made.push(layer);
            (standalone::HOME, standalone)
        } else {
            ("/usr", python_of_suite(suite))
        };
        let interpreter = if self.plan.has_conda() {
            None
        } else {
            let minor = version.and_then(|version| version.strip_prefix("3.")?.parse().ok());
            let minor = minor.ok_or_else(|| {
                BuildError::input(format!("the release has no Python: `{suite}`"))
                    .field("python_version")
            })?;
            Some(Interpreter {
                program: format!("{prefix}/bin/python3.{minor}"),
                minor,
                layers: made.iter().map(|lazy| lazy.layer.diff_id).collect(),
            })
        };
        let known = GLIBC.iter().find(|(known, _)| *known == suite);
        let foundation = Foundation {
            system: System {
                distribution: Some("debian".to_owned()),
                suite: Some(suite.to_owned()),
                architecture: architecture.to_owned(),
                packages: Packages::Ours(packages),
                shell: Some(USER_SHELL.to_owned()),
            },
            python: interpreter,
            libc: Some(known.map_or(Libc::Glibc(2, 17), |(_, libc)| *libc)),
            user: (USER_ID, USER_ID),
            conda: None,
            has_conda: false,
            venv: false,
            system_site_packages: false,
        };
        let mut draft = Draft {
            platform: platform.clone(),
            layers: made,
            runtime: ours(),
            foundation,
        };
        if draft.foundation.python.is_some() {
            self.standard_library(&mut draft).await?;
        }
        Ok(draft)
    }

    /// The packages of a base, as the archive has them now or had them within a day.
    async fn base_packages(
        &self,
        archive: &Archive,
        suite: &str,
        architecture: &str,
        python: bool,
    ) -> Result<Vec<Package>, BuildError> {
        let mut key = Framed::new("imagespec base packages");
        key.number(layers::RECIPE)
            .text(suite)
            .text(architecture)
            .number(u64::from(python))
            .text(&format!("{:?}", self.native.archive));
        let kept: PathBuf = self
            .native
            .host
            .cache_dir
            .join("debian")
            .join(format!("base-{}.json", key.finish().hex()));
        if let Some(packages) = self.fresh(&kept) {
            return Ok(packages);
        }
        let suite = archive.suite(suite, architecture).await?;
        let packages = tokio::task::block_in_place(|| suite.base_packages(python))?;
        write_atomically(&kept, &serde_json::to_vec(&packages).unwrap_or_default())
            .map_err(|error| store_error(&error))?;
        Ok(packages)
    }

    /// The Python that the release does not have, as it was found within a day.
    async fn standalone(
        &self,
        version: &str,
        platform: &Platform,
    ) -> Result<standalone::Standalone, BuildError> {
        let host = &self.native.host;
        let mut key = Framed::new("imagespec standalone python");
        key.text(version).text(&platform.to_string());
        let variables = host.variables.iter();
        let uv_s: Vec<_> = variables
            .filter(|(name, _)| name.starts_with("UV_PYTHON_"))
            .collect();
        key.list(uv_s, |key, (name, value)| {
            key.text(name).text(value);
        });
        let kept = host.cache_dir.join("pythons");
        let kept = kept.join(format!("{}.json", key.finish().hex()));
        if let Some(found) = self.fresh(&kept) {
            return Ok(found);
        }
        let step = self
            .cx
            .progress
            .step(format!("python {platform}"), format!("Python {version}"));
        let found = standalone::find(host, version, platform).await?;
        let record = serde_json::to_vec(&found).unwrap_or_default();
        write_atomically(&kept, &record).map_err(|error| store_error(&error))?;
        step.finish(
            false,
            format!("{}, {:.1} MB", found.version(), megabytes(found.size)),
        );
        Ok(found)
    }

    /// What was found out within a day and kept in a file, unless `--pull` asks again.
    pub(crate) fn fresh<T: serde::de::DeserializeOwned>(&self, kept: &Path) -> Option<T> {
        let modified = fs_err::metadata(kept).ok()?.modified().ok()?;
        let is_fresh = SystemTime::now()
            .duration_since(modified)
            .is_ok_and(|age| age < FRESH);
        if !is_fresh || self.cx.settings.pull {
            return None;
        }
        serde_json::from_slice(&fs_err::read(kept).ok()?).ok()
    }

    /// An image that was made before this one, elsewhere, and pushed.
    async fn given(&self, made: &BuiltImage, platform: &Platform) -> Result<Draft, BuildError> {
        let digest = made.digest.map(|digest| format!("@{digest}"));
        let name = format!("{}{}", made.reference, digest.unwrap_or_default());
        let mut draft = self.reference(&name, platform).await?;
        if matches!(self.plan.base, Base::Debian { .. }) {
            // What it was given to be an image of its own, this one is given anew.
            draft.runtime = ours();
        }
        Ok(draft)
    }

    /// An image that was built before this one and is in the store.
    async fn image(&self, platform: &Platform) -> Result<Draft, BuildError> {
        let missing = |what: &str| {
            BuildError::failed(format!("the image that this one starts from {what}"))
                .field("base_image")
                .hint("build it here with the `native` builder: `imagespec build --force` on its target")
        };
        let base = self.cx.base.ok_or_else(|| missing("is nowhere"))?;
        let absent = |error: std::io::Error| missing("is not in the local store").caused_by(&error);
        let store = &self.native.store;
        let digest = match base.digest {
            Some(digest) => digest,
            // What an engine was loaded with is here under the same name.
            None => store
                .find(&base.reference)
                .map_err(absent)?
                .map(|record| record.descriptor.digest)
                .ok_or_else(|| missing("is not in the local store"))?,
        };
        let blobs = store.blobs();
        let manifest = match Document::read(blobs, &digest).map_err(absent)? {
            Document::Manifest(_) => digest,
            Document::Index(index) => {
                index
                    .select(platform)
                    .map_err(|error| missing("is not for this platform").caused_by(&error))?
                    .digest
            }
        };
        let image = Image::read(blobs, &manifest, platform).map_err(absent)?;
        let Some(provenance) = Provenance::read(&self.native.host, &manifest) else {
            // Another builder made it, and brought it here.
            let made = (manifest, image);
            let looked = self.look_into(&base.reference, made, &Origin::Store, platform);
            return Ok(looked.await?.0);
        };
        let Provenance {
            foundation,
            mut layers,
        } = provenance;
        for LazyLayer { layer, origin } in &mut layers {
            // The files of its build context are not in this one's.
            let is_copy = matches!(origin, Origin::Recipe { recipe, .. } if recipe.is_copy());
            if is_copy && !self.layers.has(layer)? {
                *origin = self
                    .pushed()
                    .ok_or_else(|| missing("is not complete in the local store"))?;
            }
        }
        Ok(Draft {
            platform: platform.clone(),
            layers,
            runtime: image.runtime,
            foundation,
        })
    }

    /// Where the image that this one starts from was pushed to, if it was.
    fn pushed(&self) -> Option<Origin> {
        let base = self.cx.base.filter(|_| *self.cx.output == Output::Push)?;
        self.cx.destination.registry.as_ref()?;
        let reference: Reference = base.reference.parse().ok()?;
        Some(Origin::Registry {
            registry: reference.registry,
            repository: reference.repository,
        })
    }
}

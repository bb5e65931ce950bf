//! What will be built: semantic steps, pure data, whose digest is the image's tag.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::builder::Capability;
use crate::digest::{Digest, Framed};
use crate::platform::Platform;
use crate::resolve::python_of_suite;

/// Version of the plan's meaning, part of its digest. It grows when the same declaration would give a
/// different image.
pub const PLAN_FORMAT: u32 = 1;

/// The whole of what is built, for any builder: the same declaration gives the same plan on every machine.
///
/// Steps are in the order in which they take effect. Nothing here says where the image goes, who builds it,
/// or which mirror or credentials are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// [`PLAN_FORMAT`] of the program that made it.
    pub format: u32,
    /// The platforms, sorted, at least one.
    pub platforms: Vec<Platform>,
    /// What the image starts from.
    pub base: Base,
    /// The interpreter.
    pub python: Python,
    /// What is done to the base.
    pub steps: Vec<Step>,
    /// Entrypoint of the image: `None` leaves the base's, empty clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Environment as declared, in the order it was written; the contract's own variables are added by
    /// [`contract::environment`](crate::contract::environment).
    pub env: IndexMap<String, String>,
    /// Packages to install when a container starts. Not in the digest, as in flytekit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtime_packages: Vec<String>,
    /// Helper images of builders that use some. Not in the digest: they say how, not what.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub helper_images: BTreeMap<String, String>,
    /// Version of CUDA, whose packages are among those of Conda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<String>,
    /// Version of cuDNN, whose package is among those of Conda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cudnn: Option<String>,
    /// A file with settings of registries. Not in the digest, as in flytekit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_config: Option<String>,
    /// The files the plan names, by their path in the build context: `src/hello.py`.
    pub files: BTreeMap<String, ContextEntry>,
    /// What `_F_IMG_ID` is set to, where that is not the plan's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Contents of `imagespec.lock` that concern this image, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<serde_json::Value>,
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Base {
    /// Our own base, made from the Debian archive.
    Debian {
        /// Release: `bookworm`.
        suite: String,
    },
    /// An image of a registry.
    Reference {
        /// Its reference.
        reference: String,
    },
    /// Another image, built before this one: [`BuildContext::base`](crate::context::BuildContext::base).
    Image {
        /// Digest of its plan.
        plan: Digest,
    },
}

/// The interpreter an image's packages are installed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// `3.11`; `None` for whatever the base has.
    pub version: Option<String>,
    /// Path of an interpreter of the base.
    pub exec: Option<String>,
}

/// One thing done to the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Install Debian packages, without recommended ones.
    AptPackages {
        /// Their names, as declared: sorted, each once.
        packages: Vec<String>,
    },
    /// Install Conda packages.
    CondaPackages {
        /// Field of the spec that asks for it: `conda_packages`, `cuda`, `cudnn` or `conda_channels`.
        field: String,
        /// Match specifications, in the order written.
        packages: Vec<String>,
        /// Channels after `conda-forge`, in the order written.
        channels: Vec<String>,
    },
    /// Install Python packages into the virtual environment.
    PythonPackages {
        /// The file that says which.
        requirements: Option<Requirements>,
        /// Further requirements, in the order written; includes the SDK where one is added.
        packages: Vec<String>,
        /// Where they come from.
        index: PackageIndex,
    },
    /// Copy a folder of the build context.
    Copy {
        /// Field of the spec that asks for it: `source_root` or `copy`.
        field: String,
        /// Folder of the context whose entries are copied: `src`.
        from: String,
        /// Absolute folder of the image they are copied to: `/root`.
        to: String,
    },
    /// Run shell commands as root, one after another, stopping at the first that fails.
    Run {
        /// Each a line for `/bin/bash -c`, or `/bin/sh -c` in an image without bash.
        commands: Vec<String>,
    },
}

/// A file that names Python packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Its format.
    pub kind: RequirementsKind,
    /// Its path in the build context.
    pub path: String,
    /// Path in the build context of the `pyproject.toml` beside it, where that matters.
    pub pyproject: Option<String>,
}

/// Formats of files that name Python packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequirementsKind {
    /// pip's requirements file.
    RequirementsTxt,
    /// uv's lock file.
    UvLock,
    /// Poetry's lock file.
    PoetryLock,
    /// `[project]` of a `pyproject.toml`.
    Pyproject,
}

/// Where Python packages come from. Without credentials: those stay with whoever fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageIndex {
    /// URL of the index; `None` for the machine's.
    pub url: Option<String>,
    /// URLs of further indexes.
    pub extra_urls: Vec<String>,
    /// Further arguments of the installer, split as a shell would.
    pub extra_args: Vec<String>,
}

/// One entry of the build context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContextEntry {
    /// A regular file.
    File {
        /// Digest of its content.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// Whether it may be executed; the only part of its mode that counts, so that a umask does not.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to, as written.
        target: String,
    },
    /// A folder; listed where it would not exist otherwise.
    Directory,
}

impl BuildPlan {
    /// The plan's digest: equal for equal images, and nothing else.
    ///
    /// Every value is framed by its length. Platforms, base, interpreter, steps, entrypoint, environment,
    /// files and locks are in it. Runtime packages and helper images are not, nor is the name under which the
    /// image is known.
    pub fn digest(&self) -> Digest {
        let mut hash = Framed::new("imagespec plan");
        hash.number(self.format.into());
        hash.list(&self.platforms, |hash, platform| {
            hash.text(&platform.to_string());
        });
        match &self.base {
            Base::Debian { suite } => hash.text("debian").text(suite),
            Base::Reference { reference } => hash.text("reference").text(reference),
            Base::Image { plan } => hash.text("image").digest(plan),
        };
        hash.option(self.python.version.as_deref(), |hash, version| {
            hash.text(version);
        });
        hash.option(self.python.exec.as_deref(), |hash, exec| {
            hash.text(exec);
        });
        hash.list(&self.steps, |hash, step| step.frame(hash));
        hash.option(self.entrypoint.as_ref(), |hash, entrypoint| {
            texts(hash, entrypoint);
        });
        let env: BTreeMap<_, _> = self.env.iter().collect();
        hash.list(env, |hash, (name, value)| {
            hash.text(name).text(value);
        });
        for version in [&self.cuda, &self.cudnn] {
            hash.option(version.as_deref(), |hash, version| {
                hash.text(version);
            });
        }
        hash.list(&self.files, |hash, (path, entry)| {
            hash.text(path);
            entry.frame(hash);
        });
        hash.option(self.lock.as_ref(), |hash, lock| {
            hash.text(&lock.to_string());
        });
        hash.finish()
    }

    /// The version of Python that is wanted and that the Debian release the image starts from does not have: it is
    /// put beside the release, from a distribution of its own.
    pub fn standalone_python(&self) -> Option<&str> {
        let Base::Debian { suite } = &self.base else {
            return None;
        };
        if self.has_conda() {
            return None;
        }
        let wanted = self.python.version.as_deref()?;
        (python_of_suite(suite) != Some(wanted)).then_some(wanted)
    }

    /// Whether it has a Conda environment, whose Python is then the image's.
    pub fn has_conda(&self) -> bool {
        let is_conda = |step: &Step| matches!(step, Step::CondaPackages { .. });
        self.steps.iter().any(is_conda)
    }

    /// Whether builders that write Dockerfiles start from an image that another builder makes for them, of
    /// [`Self::base_only`]: our own base, one with a Conda environment, or one of a registry whose settings whoever
    /// builds does not know.
    pub fn has_made_base(&self) -> bool {
        match self.base {
            Base::Debian { .. } => true,
            Base::Reference { .. } => self.has_conda() || self.registry_config.is_some(),
            Base::Image { .. } => self.has_conda(),
        }
    }

    /// The plan of what this one starts from and nothing else: the base, its interpreter, the Conda environment where
    /// there is one, and an empty virtual environment.
    #[must_use]
    pub fn base_only(&self) -> Self {
        let is_conda = |step: &&Step| matches!(step, Step::CondaPackages { .. });
        let mut steps: Vec<_> = self.steps.iter().filter(is_conda).cloned().collect();
        steps.push(Step::PythonPackages {
            requirements: None,
            packages: Vec::new(),
            index: PackageIndex::default(),
        });
        Self {
            format: self.format,
            platforms: self.platforms.clone(),
            base: self.base.clone(),
            python: self.python.clone(),
            steps,
            entrypoint: None,
            env: IndexMap::new(),
            runtime_packages: Vec::new(),
            helper_images: BTreeMap::new(),
            cuda: self.cuda.clone(),
            cudnn: self.cudnn.clone(),
            registry_config: None,
            files: BTreeMap::new(),
            image_id: None,
            lock: None,
        }
    }

    /// What `_F_IMG_ID` is set to.
    pub fn image_id(&self) -> String {
        self.image_id.clone().unwrap_or_else(|| self.digest().hex())
    }

    /// What a builder must be able to do for this plan, each with the field of the spec that asks for it.
    pub fn required(&self) -> BTreeMap<Capability, &str> {
        let mut required = BTreeMap::new();
        let base = match self.base {
            Base::Debian { .. } => Capability::BaseDebian,
            Base::Reference { .. } => Capability::BaseReference,
            Base::Image { .. } => Capability::BaseImage,
        };
        required.insert(base, "base_image");
        if self.python.exec.is_some() {
            required.insert(Capability::PythonExec, "python_exec");
        }
        for step in &self.steps {
            let (capability, field) = match step {
                Step::AptPackages { .. } => (Capability::AptPackages, "apt_packages"),
                Step::CondaPackages { field, .. } => (Capability::CondaPackages, &**field),
                Step::PythonPackages {
                    requirements: Some(_),
                    ..
                } => (Capability::PythonPackages, "requirements"),
                Step::PythonPackages { .. } => (Capability::PythonPackages, "packages"),
                Step::Run { .. } => (Capability::Run, "commands"),
                Step::Copy { .. } => continue,
            };
            required.insert(capability, field);
        }
        if self.registry_config.is_some() {
            required.insert(Capability::RegistryConfig, "registry_config");
        }
        if !self.runtime_packages.is_empty() {
            required.insert(Capability::RuntimePackages, "runtime_packages");
        }
        if !self.helper_images.is_empty() {
            required.insert(Capability::HelperImages, "builder_config");
        }
        if self.platforms.len() > 1 {
            required.insert(Capability::MultiPlatform, "platform");
        }
        if self.platforms.iter().any(|platform| !platform.is_host()) {
            required.insert(Capability::ForeignPlatform, "platform");
        }
        required
    }

    /// The entries below a folder of the context, by their path in that folder.
    pub fn entries<'a>(
        &'a self,
        folder: &str,
    ) -> impl Iterator<Item = (&'a str, &'a ContextEntry)> {
        let prefix = format!("{folder}/");
        self.files
            .range(prefix.clone()..)
            .map_while(move |(path, entry)| path.strip_prefix(&prefix).map(|path| (path, entry)))
    }

    /// The fields of the spec that ask for something, for messages.
    pub fn fields(&self) -> BTreeSet<&str> {
        self.required().into_values().collect()
    }
}

impl Step {
    /// The field of the spec that asks for the step.
    pub fn field(&self) -> &str {
        match self {
            Self::AptPackages { .. } => "apt_packages",
            Self::PythonPackages {
                requirements: Some(_),
                ..
            } => "requirements",
            Self::PythonPackages { .. } => "packages",
            Self::CondaPackages { field, .. } | Self::Copy { field, .. } => field,
            Self::Run { .. } => "commands",
        }
    }

    fn frame(&self, hash: &mut Framed) {
        match self {
            Self::AptPackages { packages } => texts(hash.text("apt"), packages),
            Self::CondaPackages {
                field: _,
                packages,
                channels,
            } => texts(texts(hash.text("conda"), packages), channels),
            Self::PythonPackages {
                requirements,
                packages,
                index,
            } => {
                hash.text("python")
                    .option(requirements.as_ref(), |hash, requirements| {
                        hash.text(requirements.kind.name()).text(&requirements.path);
                        hash.option(requirements.pyproject.as_deref(), |hash, path| {
                            hash.text(path);
                        });
                    });
                texts(hash, packages).option(index.url.as_deref(), |hash, url| {
                    hash.text(url);
                });
                texts(texts(hash, &index.extra_urls), &index.extra_args)
            }
            Self::Copy { field: _, from, to } => hash.text("copy").text(from).text(to),
            Self::Run { commands } => texts(hash.text("run"), commands),
        };
    }
}

impl RequirementsKind {
    /// The name it has in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequirementsTxt => "requirements_txt",
            Self::UvLock => "uv_lock",
            Self::PoetryLock => "poetry_lock",
            Self::Pyproject => "pyproject",
        }
    }
}

impl ContextEntry {
    fn frame(&self, hash: &mut Framed) {
        match self {
            Self::File {
                digest,
                size: _,
                executable,
            } => hash
                .text("file")
                .digest(digest)
                .number(u64::from(*executable)),
            Self::Symlink { target } => hash.text("symlink").text(target),
            Self::Directory => hash.text("directory"),
        };
    }
}

fn texts<'a>(hash: &'a mut Framed, texts: &[String]) -> &'a mut Framed {
    hash.list(texts, |hash, text| {
        hash.text(text);
    })
}

//! `imagespec.toml`: images, deployments and registries, found in the working directory or above it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use imagespec_core::deployment::{BUILT_IN, Deployment};
use imagespec_core::error::BuildError;
use imagespec_core::host::RegistrySettings;
use imagespec_core::spec::{BaseImage, ImageSpec};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::text::{from_toml, nearest, read, spec_file};
use crate::host;

/// Name of the project's file.
const FILE: &str = "imagespec.toml";

/// The content of `imagespec.toml`, or of the person's own configuration, where `images` is not allowed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// The active deployment.
    deployment: Option<String>,
    /// Defaults of deployments, by name.
    #[serde(default)]
    deployments: BTreeMap<String, Deployment>,
    /// The images, by name.
    #[serde(default)]
    images: IndexMap<String, ImageSpec>,
    /// Settings of single registries, by host and port.
    #[serde(default)]
    registries: BTreeMap<String, RegistrySettings>,
}

/// What the files around the working directory say.
#[derive(Debug)]
pub(crate) struct Project {
    folder: PathBuf,
    path: Option<PathBuf>,
    file: File,
    user: File,
}

/// An image a person asked for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What the person calls it.
    pub(crate) name: String,
    /// The name of an image that has none.
    pub(crate) default_name: String,
    /// Its spec.
    pub(crate) spec: ImageSpec,
    /// Where its paths start.
    pub(crate) folder: PathBuf,
    /// Where its file is, for hints.
    pub(crate) spec_folder: Option<PathBuf>,
    /// The image it starts from, where that is another one of ours.
    pub(crate) base: Option<Box<Target>>,
}

impl Project {
    /// Reads the project around `folder`, if there is one, and the person's own configuration.
    pub(crate) fn load(folder: &Path, explicit: Option<&Path>) -> Result<Self, BuildError> {
        let path = match explicit {
            Some(path) => Some(folder.join(path)),
            None => folder
                .ancestors()
                .map(|folder| folder.join(FILE))
                .find(|path| path.is_file()),
        };
        let mut file = File::default();
        if let Some(path) = &path {
            file = from_toml(&read(path)?, path)?;
        }
        let mut user = File::default();
        if let Some(path) = host::user_config().filter(|path| path.is_file()) {
            user = from_toml(&read(&path)?, &path)?;
        }
        let beside = |path: &PathBuf| path.parent().map(Path::to_path_buf);
        for settings in file.registries.values_mut() {
            settings.ca = settings
                .ca
                .take()
                .map(|ca| path.as_ref().and_then(beside).unwrap_or_default().join(ca));
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            path,
            file,
            user,
        })
    }

    /// Settings of registries; the project's win.
    pub(crate) fn registries(&self) -> BTreeMap<String, RegistrySettings> {
        let mut registries = self.user.registries.clone();
        registries.extend(self.file.registries.clone());
        registries
    }

    /// The deployment that a flag or a variable names, or else the files, or else `flyte`.
    pub(crate) fn deployment(&self, named: Option<&str>) -> Result<Deployment, BuildError> {
        let name = named
            .or(self.file.deployment.as_deref())
            .or(self.user.deployment.as_deref())
            .unwrap_or("flyte");
        let found = [
            self.file.deployments.get(name).cloned(),
            self.user.deployments.get(name).cloned(),
            Deployment::built_in(name),
        ];
        found
            .into_iter()
            .flatten()
            .reduce(Deployment::or)
            .ok_or_else(|| {
                let own = self
                    .file
                    .deployments
                    .keys()
                    .chain(self.user.deployments.keys())
                    .map(String::as_str);
                let known: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).chain(own).collect();
                BuildError::input(format!("unknown deployment: `{name}`"))
                    .hint(format!("known deployments: {}", known.join(", ")))
            })
    }

    /// The images asked for, or all of the project.
    pub(crate) fn targets(&self, names: &[String]) -> Result<Vec<Target>, BuildError> {
        if !names.is_empty() {
            return names.iter().map(|name| self.target(name)).collect();
        }
        if self.path.is_none() {
            return Err(BuildError::input(format!(
                "there is no {FILE} in `{}` or above it",
                self.folder.display()
            ))
            .hint("`imagespec init` writes one; or name a spec file"));
        }
        if self.file.images.is_empty() {
            return Err(BuildError::input(format!("{FILE} declares no images"))
                .hint("add a table `[images.NAME]`"));
        }
        self.file
            .images
            .keys()
            .map(|name| self.image(name, &mut Vec::new()))
            .collect()
    }

    fn target(&self, name: &str) -> Result<Target, BuildError> {
        let extension = Path::new(name)
            .extension()
            .and_then(|extension| extension.to_str());
        match extension {
            Some("py") => Err(BuildError::input(format!(
                "this version does not read Python code: `{name}`"
            ))
            .hint(
                "declare the image in imagespec.toml, or in a YAML, JSON or TOML file of its own",
            )),
            Some("yaml" | "yml" | "json" | "toml") if !self.file.images.contains_key(name) => {
                let path = self.folder.join(name);
                let spec = spec_file(&path)?;
                let spec_folder = path.parent().map(Path::to_path_buf);
                self.with_base(
                    name,
                    "flytekit",
                    spec,
                    &self.folder,
                    spec_folder,
                    &mut Vec::new(),
                )
            }
            _ => self.image(name, &mut Vec::new()),
        }
    }

    fn image(&self, name: &str, above: &mut Vec<String>) -> Result<Target, BuildError> {
        let Some(spec) = self.file.images.get(name) else {
            let known: Vec<_> = self.file.images.keys().map(String::as_str).collect();
            let error = BuildError::input(format!("unknown image: `{name}`"));
            let error = match nearest(name, known.iter().copied()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            };
            return Err(if known.is_empty() {
                error.hint(format!(
                    "there is no {FILE} with images here; `-C DIR` works elsewhere"
                ))
            } else {
                error.hint(format!("known images: {}", known.join(", ")))
            });
        };
        if above.iter().any(|other| other == name) {
            let circle = above
                .iter()
                .map(String::as_str)
                .chain([name])
                .collect::<Vec<_>>()
                .join(" → ");
            return Err(
                BuildError::input(format!("images start from each other: {circle}"))
                    .field("base_image"),
            );
        }
        above.push(name.to_owned());
        let folder = self
            .path
            .as_deref()
            .and_then(Path::parent)
            .unwrap_or(&self.folder);
        let target = self.with_base(name, name, spec.clone(), folder, None, above);
        above.pop();
        target
    }

    fn with_base(
        &self,
        name: &str,
        default_name: &str,
        spec: ImageSpec,
        folder: &Path,
        spec_folder: Option<PathBuf>,
        above: &mut Vec<String>,
    ) -> Result<Target, BuildError> {
        let base = match &spec.base_image {
            Some(BaseImage::Image { image }) => Some(self.image(image, above)?),
            Some(BaseImage::Spec(inner)) => Some(self.with_base(
                &format!("base of {name}"),
                "flytekit",
                (**inner).clone(),
                folder,
                spec_folder.clone(),
                above,
            )?),
            _ => None,
        };
        Ok(Target {
            name: name.to_owned(),
            default_name: default_name.to_owned(),
            spec,
            folder: folder.to_path_buf(),
            spec_folder,
            base: base.map(Box::new),
        })
    }
}

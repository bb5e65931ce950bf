//! `imagespec.toml`: images, deployments and registries, found in the working directory or above it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use imagespec_core::deployment::{BUILT_IN, Deployment};
use imagespec_core::error::BuildError;
use imagespec_core::host::RegistrySettings;
use imagespec_core::spec::{BaseImage, ImageSpec};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::code::{self, Coded, Reading};
use super::text::{from_toml, nearest, read, spec_file};
use crate::env;

/// Name of the project's file.
const FILE: &str = "imagespec.toml";

/// The tables and keys of [`File`].
pub(super) const FIELDS: [&str; 4] = ["deployment", "deployments", "images", "registries"];

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

impl File {
    /// Reads a file; paths of certificates are relative to its folder.
    fn read(path: &Path) -> Result<Self, BuildError> {
        let mut file: Self = from_toml(&read(path)?, path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for settings in file.registries.values_mut() {
            settings.files().for_each(|file| *file = folder.join(&file));
        }
        Ok(file)
    }

    /// Reads the person's own configuration, which belongs to no project.
    fn read_settings(path: &Path) -> Result<Self, BuildError> {
        let file = Self::read(path)?;
        match file.images.keys().next() {
            None => Ok(file),
            Some(name) => {
                let message = format!("images belong into a project's {FILE}: `{name}`");
                Err(BuildError::input(message)
                    .hint(format!("move it there from `{}`", path.display())))
            }
        }
    }
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
    /// What code says of it, where it stands in code.
    pub(crate) code: Option<Coded>,
}

impl Project {
    /// Reads the project around `folder`, or the file that is named, and the person's own configuration.
    pub(crate) fn load(
        folder: &Path,
        named: Option<&Path>,
        user: Option<&Path>,
    ) -> Result<Self, BuildError> {
        let path = match named {
            Some(path) => Some(folder.join(path)),
            None => folder
                .ancestors()
                .map(|folder| folder.join(FILE))
                .find(|path| path.is_file()),
        };
        let file = path.as_deref().map(File::read).transpose();
        let file = file.map_err(|error| match named {
            Some(_) => error.hint(format!("the variable `{}` names it", env::CONFIG.name)),
            None => error,
        })?;
        let user = match user.filter(|path| path.is_file()) {
            Some(path) => File::read_settings(path)?,
            None => File::default(),
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            path,
            file: file.unwrap_or_default(),
            user,
        })
    }

    /// Settings of registries; the project's win.
    pub(crate) fn registries(&self) -> BTreeMap<String, RegistrySettings> {
        let mut registries = self.user.registries.clone();
        registries.extend(self.file.registries.clone());
        registries
    }

    /// Where images go, as the files say: registries with the paths in them, and those that have settings.
    pub(crate) fn places(&self) -> BTreeSet<String> {
        let files = [&self.file, &self.user];
        let deployments = files.iter().flat_map(|file| file.deployments.values());
        let deployments = deployments.filter_map(|deployment| deployment.registry.as_ref());
        let images = self.file.images.values();
        let images = images.filter_map(|image| image.registry.as_ref());
        let named: BTreeSet<_> = deployments.chain(images).cloned().collect();
        let has_place = |host: &&String| {
            let path = format!("{host}/");
            named
                .iter()
                .any(|name| name == *host || name.starts_with(&path))
        };
        let settings = files.iter().flat_map(|file| file.registries.keys());
        let others: Vec<_> = settings.filter(|host| !has_place(host)).cloned().collect();
        named.into_iter().chain(others).collect()
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
            .ok_or_else(|| self.unknown_deployment(name))
    }

    fn unknown_deployment(&self, name: &str) -> BuildError {
        let own = [&self.file, &self.user];
        let own = own.iter().flat_map(|file| file.deployments.keys());
        let mut known: Vec<_> = BUILT_IN.iter().map(|(name, ..)| *name).collect();
        known.extend(own.map(String::as_str));
        known.sort_unstable();
        known.dedup();
        unknown("deployment", name, &known)
    }

    /// The images asked for, or all of the project.
    pub(crate) fn targets(
        &self,
        names: &[String],
        reading: Reading<'_>,
    ) -> Result<Vec<Target>, BuildError> {
        let is_code = |name: &String| {
            !self.file.images.contains_key(name) && code::is_code(name, &self.folder)
        };
        if reading.via.is_some() && !names.iter().any(is_code) {
            let message = "`--via` says how Python files are read, and none is named";
            return Err(BuildError::input(message).hint("leave it out, or name a `.py` file"));
        }
        if !names.is_empty() {
            let targets = names.iter().map(|name| {
                if is_code(name) {
                    code::targets(name, &self.folder, reading)
                } else {
                    self.target(name).map(|target| vec![target])
                }
            });
            let targets = targets.collect::<Result<Vec<_>, _>>()?;
            return Ok(targets.into_iter().flatten().collect());
        }
        if self.path.is_none() {
            return Err(BuildError::input(format!(
                "there is no {FILE} in `{}` or above it",
                self.folder.display()
            ))
            .hint("`imagespec init` writes one; or name a spec file or a Python file"));
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
            let error = self.unknown_image(name);
            return Err(match above.last() {
                Some(child) => error
                    .field("base_image")
                    .context(format!("invalid `base_image` of the image: `{child}`")),
                None => error,
            });
        };
        if above.iter().any(|other| other == name) {
            let circle = above
                .iter()
                .map(String::as_str)
                .chain([name])
                .collect::<Vec<_>>()
                .join(" → ");
            let message = format!("images start from each other: {circle}");
            return Err(BuildError::input(message)
                .field("base_image")
                .hint("break the circle: one of them has to start from something else"));
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

    fn unknown_image(&self, name: &str) -> BuildError {
        let known: Vec<_> = self.file.images.keys().map(String::as_str).collect();
        match &self.path {
            Some(_) if !known.is_empty() => unknown("image", name, &known),
            Some(path) => {
                unknown("image", name, &[]).hint(format!("`{}` declares no images", path.display()))
            }
            None => unknown("image", name, &[]).hint(format!(
                "there is no {FILE} in `{}` or above it; `-C DIR` works elsewhere",
                self.folder.display()
            )),
        }
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
            code: None,
        })
    }
}

/// The error of a name that nothing has, with those that are known.
fn unknown(what: &str, name: &str, known: &[&str]) -> BuildError {
    let mut error = BuildError::input(format!("unknown {what}: `{name}`"));
    if let Some(near) = nearest(name, known.iter().copied()) {
        error = error.hint(format!("did you mean `{near}`?"));
    }
    if known.is_empty() {
        return error;
    }
    error.hint(format!("known {what}s: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    static NOTHING: BTreeMap<String, String> = BTreeMap::new();
    const READING: Reading<'static> = Reading {
        via: None,
        variables: &NOTHING,
        fast: true,
    };

    /// A project of the files given, by their path in a new folder.
    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Project, BuildError>) {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs_err::write(path, text).expect("a file");
        }
        let work = folder.path().join("work");
        fs_err::create_dir_all(&work).expect("a folder");
        let project = Project::load(&work, None, Some(&folder.path().join("user/config.toml")));
        (folder, project)
    }

    #[test]
    fn the_nearest_file_counts_and_its_folder_is_where_paths_start() {
        let (folder, project) = project(&[(
            "imagespec.toml",
            "[images.a]\n[images.b]\nbase_image = { image = \"a\" }",
        )]);
        let targets = project
            .expect("a project")
            .targets(&[], READING)
            .expect("targets");
        let names: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(targets[0].folder, folder.path());
        let base = targets[1].base.as_deref().expect("a base");
        assert_eq!((base.name.as_str(), base.default_name.as_str()), ("a", "a"));
    }

    #[test]
    fn a_spec_file_is_relative_to_the_working_directory_and_named_as_flytekit_does() {
        let (folder, project) = project(&[("work/specs/a.yaml", "packages: [requests]")]);
        let names = ["specs/a.yaml".to_owned()];
        let target = project
            .expect("a project")
            .targets(&names, READING)
            .expect("a target")
            .remove(0);
        assert_eq!(target.folder, folder.path().join("work"));
        assert_eq!(target.spec_folder, Some(folder.path().join("work/specs")));
        assert_eq!(target.default_name, "flytekit");
    }

    #[test]
    fn circles_are_refused_by_name() {
        let text = "[images.a]\nbase_image = { image = \"b\" }\n[images.b.base_image.base_image]\nimage = \"a\"";
        let (_folder, project) = project(&[("work/imagespec.toml", text)]);
        let error = project
            .expect("a project")
            .targets(&[], READING)
            .expect_err("a circle");
        assert_eq!(error.message, "images start from each other: a → b → a");
    }

    #[test]
    fn deployments_are_merged_the_nearer_first() {
        let (_folder, project) = project(&[
            (
                "imagespec.toml",
                "deployment = \"mine\"\n[deployments.mine]\nregistry = \"r.example\"\n[deployments.serverless.builders.native]\na = 1",
            ),
            (
                "user/config.toml",
                "deployment = \"other\"\n[deployments.mine]\nregistry = \"no.example\"\nbuilder = \"native\"",
            ),
        ]);
        let project = project.expect("a project");
        let mine = project.deployment(None).expect("a deployment");
        assert_eq!(mine.registry.as_deref(), Some("r.example"));
        assert_eq!(mine.builder.as_deref(), Some("native"));
        let serverless = project
            .deployment(Some("serverless"))
            .expect("a deployment");
        assert_eq!(serverless.builder.as_deref(), Some("union"));
        assert_eq!(serverless.builders["native"]["a"], 1);
        let error = project.deployment(Some("mien")).expect_err("unknown");
        assert_eq!(
            error.hints,
            [
                "did you mean `mine`?",
                "known deployments: byoc, flyte, mine, selfmanaged, serverless"
            ]
        );
    }

    #[test]
    fn registries_of_the_project_win_and_certificates_lie_beside_their_file() {
        let (folder, project) = project(&[
            (
                "work/imagespec.toml",
                "[registries.\"a:1\"]\ninsecure = true",
            ),
            (
                "user/config.toml",
                "[registries.\"a:1\"]\n[registries.\"b:1\"]\nca = \"b.pem\"",
            ),
        ]);
        let registries = project.expect("a project").registries();
        assert!(registries["a:1"].insecure);
        assert_eq!(registries["b:1"].ca, Some(folder.path().join("user/b.pem")));
    }

    #[test]
    fn settings_of_a_person_hold_no_images() {
        let (_folder, project) = project(&[("user/config.toml", "[images.a]")]);
        let error = project.expect_err("an image");
        assert_eq!(
            error.message,
            "images belong into a project's imagespec.toml: `a`"
        );
    }

    #[test]
    fn the_fields_of_the_file_are_those_it_knows() {
        let error = toml::from_str::<File>("zzz = 1")
            .expect_err("unknown")
            .to_string();
        for field in FIELDS {
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }
}

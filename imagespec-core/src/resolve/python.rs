//! What a spec says of Python: the interpreter, and the files and packages installed for it.

use super::index::package_index;
use super::sources::Inputs;
use super::{ResolveContext, Resolved};
use crate::deployment::Sdk;
use crate::error::BuildError;
use crate::plan::{Base, Requirements, RequirementsKind, Step};
use crate::spec::ImageSpec;

/// The Debian release of images that say nothing of Python.
pub const DEFAULT_SUITE: &str = "bookworm";
/// The versions of Python that releases of Debian have.
const SUITES: [(&str, &str); 3] = [
    ("3.9", "bullseye"),
    ("3.11", "bookworm"),
    ("3.13", "trixie"),
];
/// How deep requirements files may include each other.
const DEPTH: usize = 16;
/// The largest requirements file, in bytes.
const LIMIT: u64 = 64 << 20;

/// The Debian release that has a version of Python.
pub fn suite_for_python(version: &str) -> Option<&'static str> {
    SUITES
        .iter()
        .find(|(known, _)| *known == minor(version))
        .map(|(_, suite)| *suite)
}

/// `3.11` of `3.11.7`.
pub(super) fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The Debian release that an image starts from. A version of Python that none has stands beside that of
/// [`DEFAULT_SUITE`]: [`BuildPlan::standalone_python`](crate::plan::BuildPlan::standalone_python).
pub(super) fn suite(spec: &ImageSpec) -> &'static str {
    let version = spec.python_version.as_deref();
    version.and_then(suite_for_python).unwrap_or(DEFAULT_SUITE)
}

/// The versions of Python that come with Debian.
pub fn debian_pythons() -> impl Iterator<Item = &'static str> {
    SUITES.iter().map(|(version, _)| *version)
}

/// The version of Python that a Debian release has: `3.11`.
pub fn python_of_suite(suite: &str) -> Option<&'static str> {
    let found = SUITES.iter().find(|(_, known)| *known == suite);
    found.map(|(version, _)| *version)
}

pub(super) fn packages(
    spec: &ImageSpec,
    cx: &ResolveContext<'_>,
    inputs: &mut Inputs<'_>,
) -> Result<Option<Step>, BuildError> {
    let requirements = spec
        .requirements
        .as_deref()
        .map(|path| requirements(path, inputs))
        .transpose()?;
    let packages = spec.packages.iter().flatten();
    let mut packages: Vec<_> = packages.map(|package| inputs.strip(package)).collect();
    let locked = requirements.as_ref().is_some_and(|requirements| {
        matches!(
            requirements.kind,
            RequirementsKind::UvLock | RequirementsKind::PoetryLock
        )
    });
    let sdk = match cx.deployment.sdk {
        Some(Sdk::Flytekit) => Some("flytekit"),
        None => cx.code.map(|code| code.sdk),
    };
    if let Some(sdk) = sdk.filter(|_| !locked) {
        let named = |requirement: &String| {
            let end = requirement
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
                .unwrap_or(requirement.len());
            &requirement[..end] == "flytekit"
        };
        let lines = requirements
            .as_ref()
            .map(|requirements| inputs.lines(&requirements.path))
            .unwrap_or_default();
        if !packages.iter().any(named) && !lines.iter().any(named) {
            packages.push(cx.code.map_or(sdk, |code| code.sdk).to_owned());
        }
    }
    let conda = [&spec.conda_packages, &spec.conda_channels];
    let conda = conda
        .iter()
        .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()));
    let venv_wanted =
        requirements.is_some() || !packages.is_empty() || spec.python_exec.is_some() || conda;
    if !venv_wanted && !matches!(super::base(spec, cx)?, Base::Debian { .. }) {
        return Ok(None);
    }
    Ok(Some(Step::PythonPackages {
        requirements,
        packages,
        index: package_index(spec, inputs)?,
    }))
}

fn requirements(path: &str, inputs: &mut Inputs<'_>) -> Result<Requirements, BuildError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let folder = path.strip_suffix(name).unwrap_or_default().to_owned();
    let kind = match name {
        "uv.lock" => RequirementsKind::UvLock,
        "poetry.lock" => RequirementsKind::PoetryLock,
        "pyproject.toml" => RequirementsKind::Pyproject,
        _ => RequirementsKind::RequirementsTxt,
    };
    let context = format!("python/{name}");
    let bytes = inputs.read("requirements", path, LIMIT)?;
    let mut pyproject = None;
    match kind {
        RequirementsKind::RequirementsTxt => {
            includes(&bytes, &folder, &mut vec![name.to_owned()], inputs)?;
        }
        RequirementsKind::Pyproject => pyproject = Some(context.clone()),
        RequirementsKind::UvLock | RequirementsKind::PoetryLock => {
            let sibling = format!("{folder}pyproject.toml");
            if !inputs.exists(&sibling) {
                let message = format!(
                    "to use {name}, a pyproject.toml file must be in the same directory as the lock file"
                );
                return Err(BuildError::input(message).field("requirements"));
            }
            let bytes = inputs.read("requirements", &sibling, LIMIT)?;
            inputs.insert("python/pyproject.toml".to_owned(), bytes);
            pyproject = Some("python/pyproject.toml".to_owned());
        }
    }
    inputs.insert(context.clone(), bytes);
    Ok(Requirements {
        kind,
        path: context,
        pyproject,
    })
}

/// Takes along what a requirements file includes with `-r` and `-c`. `around` are the files that lead to this
/// one, which is the last, relative to the folder of the first.
fn includes(
    bytes: &[u8],
    folder: &str,
    around: &mut Vec<String>,
    inputs: &mut Inputs<'_>,
) -> Result<(), BuildError> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for included in text.lines().filter_map(included) {
        let refused = |problem: &str| {
            BuildError::input(format!("a requirements file {problem}: `{included}`"))
                .field("requirements")
        };
        if included.starts_with('/') || included.split('/').any(|part| part == "..") {
            return Err(
                refused("is outside the folder of the file that includes it").hint(
                    "name the topmost file in `requirements`, and include the others from there",
                ),
            );
        }
        let above = around
            .last()
            .and_then(|file| file.rsplit_once('/'))
            .map_or(String::new(), |(above, _)| format!("{above}/"));
        let parts = included
            .split('/')
            .filter(|part| !matches!(*part, "" | "."));
        let path = format!("{above}{}", parts.collect::<Vec<_>>().join("/"));
        if around.contains(&path) {
            return Err(refused("includes itself"));
        }
        if around.len() == DEPTH {
            return Err(refused("is included too deeply"));
        }
        let context = format!("python/{path}");
        if inputs.has(&context) {
            continue;
        }
        let bytes = inputs.read("requirements", &format!("{folder}{path}"), LIMIT)?;
        inputs.insert(context, bytes.clone());
        around.push(path);
        includes(&bytes, folder, around, inputs)?;
        around.pop();
    }
    Ok(())
}

/// The file that a line of a requirements file includes, as pip reads it: `-r FILE`, `-rFILE`,
/// `--requirement=FILE`, and the same for constraints. URLs are left to the resolver.
fn included(line: &str) -> Option<&str> {
    let line = line.trim();
    let long = ["--requirement", "--constraint"]
        .into_iter()
        .find_map(|option| line.strip_prefix(option))
        .filter(|rest| rest.starts_with(['=', ' ', '\t']));
    let rest = long.or_else(|| line.strip_prefix("-r").or_else(|| line.strip_prefix("-c")))?;
    let file = rest.trim_start_matches(['=', ' ', '\t']);
    let comment = file.find(" #").or_else(|| file.find("\t#"));
    let file = comment.map_or(file, |at| &file[..at]).trim();
    (!file.is_empty() && !file.contains("://")).then_some(file)
}

impl Resolved {
    /// Name of the image, without registry and tag.
    pub fn name(&self) -> &str {
        &self.destination.name
    }
}

#[cfg(test)]
mod tests {
    use super::included;

    #[test]
    fn includes_are_read_as_pip_reads_them() {
        for (line, expected) in [
            ("-r base.txt", Some("base.txt")),
            ("  -rbase.txt", Some("base.txt")),
            ("-c a/b.txt  # why", Some("a/b.txt")),
            ("--requirement=base.txt", Some("base.txt")),
            ("--constraint base.txt", Some("base.txt")),
            ("--require-hashes", None),
            ("-r https://host.example/base.txt", None),
            ("requests", None),
            ("# -r base.txt", None),
        ] {
            assert_eq!(included(line), expected, "{line}");
        }
    }
}

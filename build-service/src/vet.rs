//! What a project may ask for. A plan is data of somebody else: it names no file outside of its own context, no server
//! but those that the project may use, and nothing that would run on this machine, unless its people are trusted.

mod locks;
mod servers;

use std::collections::BTreeMap;
use std::path::{Component, Path};

use imagespec_build_api::Wanted;
use imagespec_core::context::{ContextFiles, SecretMount};
use imagespec_core::error::BuildError;
use imagespec_core::plan::{
    Base, BuildPlan, ContextEntry, PackageIndex, Requirements, RequirementsKind, Step,
};
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};

use crate::settings::Limits;

/// What to do where only trust helps.
const TRUST: &str = "whoever runs the service can trust the project: `trusted = true`";

/// The secrets that a request names, as files of this machine.
pub(crate) fn mounts(
    secrets: &BTreeMap<String, String>,
    limits: &Limits,
) -> Result<Vec<SecretMount>, BuildError> {
    let refused = |message: String| BuildError::input(message).field("secrets");
    let mount = |(name, target): (&String, &String)| {
        let Some(source) = limits.secrets.get(name) else {
            let message = format!("the service has no such secret for the project: `{name}`");
            let known: Vec<_> = limits.secrets.keys().map(String::as_str).collect();
            return Err(refused(message).hint(match &known[..] {
                [] => "it has none; whoever runs the service adds some: `secrets`".to_owned(),
                known => format!("it has {}", known.join(", ")),
            }));
        };
        let path = Path::new(target);
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) || target.ends_with('/') {
            let message = format!("expected an absolute path for the secret `{name}`: `{target}`");
            return Err(refused(message));
        }
        Ok(SecretMount {
            source: source.clone(),
            target: path.to_owned(),
        })
    };
    secrets.iter().map(mount).collect()
}

/// Refuses a request that is not sound, or that the project may not make.
pub(crate) fn request(wanted: &Wanted, limits: &Limits) -> Result<(), BuildError> {
    sound(&wanted.plan)?;
    if wanted.plan.registry_config.is_some() {
        let message = "the service speaks with registries by settings of its own";
        return Err(BuildError::input(message)
            .field("registry_config")
            .hint("leave it out; whoever runs the service sets `[registries]`"));
    }
    mounts(&wanted.secrets, limits)?;
    let destination = &wanted.destination;
    let Some(registry) = &destination.registry else {
        let message = "an image of the build service needs a registry";
        return Err(BuildError::input(message)
            .field("registry")
            .hint("name one: `--registry`, or `registry` of the deployment"));
    };
    if limits.trusted {
        return Ok(());
    }
    if !is_within(&destination.repository(), &limits.registries) {
        let message = format!("the project may not push to this registry: `{registry}`");
        return Err(refused(
            message,
            "registry",
            "registries",
            &limits.registries,
        ));
    }
    let based = match (&wanted.plan.base, &wanted.base) {
        (Base::Reference { reference }, _) => Some(reference),
        (_, Some(base)) => Some(&base.reference),
        _ => None,
    };
    if let Some(reference) = based
        && !is_within(reference, &limits.registries)
        && !is_within(reference, &limits.bases)
    {
        let message = format!("the project's images may not start from this one: `{reference}`");
        return Err(refused(message, "base_image", "bases", &limits.bases));
    }
    wanted.plan.steps.iter().try_for_each(|step| match step {
        Step::Run { .. } if !limits.commands => Err(BuildError::input(
            "the service runs no commands of people whom it does not trust",
        )
        .field("commands")
        .hint("whoever runs the service can allow the project some: `commands = true`")
        .hint(TRUST)),
        Step::PythonPackages {
            requirements,
            packages,
            index,
        } => {
            self::index(index, limits)?;
            for package in packages {
                requirement(package).map_err(|error| error.field("packages"))?;
            }
            python_files(&wanted.plan, requirements.as_ref())
        }
        Step::CondaPackages {
            packages, channels, ..
        } => conda(packages, channels, limits),
        _ => Ok(()),
    })
}

/// Refuses what stands in files that the project may not ask for.
pub(crate) fn files(
    plan: &BuildPlan,
    files: &dyn ContextFiles,
    limits: &Limits,
) -> Result<(), BuildError> {
    if limits.trusted {
        return Ok(());
    }
    let read = |path: &str| {
        let content = files.read(path).map_err(|error| {
            let message = format!("cannot read `{path}` of the build context");
            BuildError::input(message).caused_by(&error)
        })?;
        Ok::<_, BuildError>(String::from_utf8_lossy(&content).into_owned())
    };
    for step in &plan.steps {
        let Step::PythonPackages {
            requirements: Some(file),
            ..
        } = step
        else {
            continue;
        };
        let text = read(&file.path)?;
        let vetted = match file.kind {
            RequirementsKind::RequirementsTxt => lines(&text),
            RequirementsKind::UvLock => locks::uv(&text, limits),
            RequirementsKind::PoetryLock => locks::poetry(&text, limits),
            RequirementsKind::Pyproject => locks::project(&text),
        };
        let beside = || match &file.pyproject {
            Some(path) => locks::project(&read(path)?),
            None => Ok(()),
        };
        vetted
            .and_then(|()| beside())
            .map_err(|error| error.field("requirements"))?;
    }
    Ok(())
}

/// Refuses files beside those that a step names: programs look for settings there.
fn python_files(plan: &BuildPlan, named: Option<&Requirements>) -> Result<(), BuildError> {
    let is_named = |path: &String| {
        named.is_some_and(|named| *path == named.path || Some(path) == named.pyproject.as_ref())
    };
    let mut python = plan.files.keys().filter(|path| path.starts_with("python/"));
    match python.find(|path| !is_named(path)) {
        Some(path) => {
            let message = format!(
                "the service takes no files beside `requirements` from people whom it does not trust: `{path}`"
            );
            Err(BuildError::input(message).field("requirements").hint(TRUST))
        }
        None => Ok(()),
    }
}

/// Refuses lines of a requirements file that are no plain requirements.
fn lines(text: &str) -> Result<(), BuildError> {
    let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
    for line in joined.lines() {
        let line = line.trim();
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // pip's options of a single requirement: hashes are fine, others are not.
        let mut words = line.split(" --");
        let plain = words.next().unwrap_or_default();
        if let Some(option) = words.find(|word| !word.starts_with("hash")) {
            let message = format!(
                "the service takes no such option from people whom it does not trust: `--{option}`"
            );
            return Err(BuildError::input(message).hint(TRUST));
        }
        requirement(plain)?;
    }
    Ok(())
}

/// Refuses a requirement that is more than a name and versions.
fn requirement(text: &str) -> Result<(), BuildError> {
    // The library that reads requirements slices others where no character begins.
    let parsed = || text.trim().parse::<Requirement<VerbatimUrl>>();
    let plain = text.is_ascii()
        && parsed().is_ok_and(|requirement| {
            !matches!(requirement.version_or_url, Some(VersionOrUrl::Url(_)))
        });
    if plain {
        return Ok(());
    }
    let message = format!(
        "the service takes only names and versions from people whom it does not trust: `{text}`"
    );
    Err(BuildError::input(message).hint(TRUST))
}

fn index(index: &PackageIndex, limits: &Limits) -> Result<(), BuildError> {
    if let Some(argument) = index.extra_args.first() {
        let message = format!(
            "the service takes no further arguments of the installer from people whom it does not trust: `{argument}`"
        );
        return Err(BuildError::input(message)
            .field("pip_extra_args")
            .hint(TRUST));
    }
    let all = index.url.iter().map(|url| ("pip_index", url));
    let extra = index.extra_urls.iter();
    let mut all = all.chain(extra.map(|url| ("pip_extra_index_url", url)));
    match all.find(|(_, url)| !limits.indexes.contains(url)) {
        Some((field, url)) => {
            let message = format!("the project may not use this package index: `{url}`");
            Err(refused(message, field, "indexes", &limits.indexes))
        }
        None => Ok(()),
    }
}

/// Refuses channels that the project may not use, and packages that are more than a name and versions.
fn conda(packages: &[String], channels: &[String], limits: &Limits) -> Result<(), BuildError> {
    let allowed =
        |channel: &&String| channel.as_str() == "conda-forge" || limits.indexes.contains(channel);
    if let Some(channel) = channels.iter().find(|channel| !allowed(channel)) {
        let message = format!("the project may not use this Conda channel: `{channel}`");
        return Err(refused(
            message,
            "conda_channels",
            "indexes",
            &limits.indexes,
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-=<>!,*|~ ".contains(c);
    match packages.iter().find(|package| !package.chars().all(plain)) {
        Some(package) => {
            let message = format!(
                "the service takes only names and versions from people whom it does not trust: `{package}`"
            );
            Err(BuildError::input(message)
                .field("conda_packages")
                .hint(TRUST))
        }
        None => Ok(()),
    }
}

fn refused(message: String, field: &str, setting: &str, allowed: &[String]) -> BuildError {
    let allowed = if allowed.is_empty() {
        "none is allowed".to_owned()
    } else {
        format!("allowed: {}", allowed.join(", "))
    };
    BuildError::input(message).field(field).hint(format!(
        "{allowed}; whoever runs the service sets `{setting}` of the project"
    ))
}

/// Whether a repository or reference is at one of some registries, or at a path in one.
fn is_within(reference: &str, registries: &[String]) -> bool {
    registries.iter().any(|registry| {
        let rest = reference.strip_prefix(registry.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.starts_with('/'))
    })
}

/// Refuses a plan that no client of ours makes.
fn sound(plan: &BuildPlan) -> Result<(), BuildError> {
    let wrong = |what: &str| {
        Err(BuildError::input(format!(
            "the plan is not sound: `{what}`"
        )))
    };
    if plan.platforms.is_empty() {
        return wrong("no platform");
    }
    for (path, entry) in &plan.files {
        let is_name = |part| matches!(part, Component::Normal(_));
        let exact = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !exact || path.contains('\0') || !Path::new(path).components().all(is_name) {
            return wrong(path);
        }
        if let ContextEntry::File { size, .. } = entry
            && i64::try_from(*size).is_err()
        {
            return wrong(path);
        }
        // What is below a link would be where the link points.
        let mut parents = path.match_indices('/').map(|(end, _)| &path[..end]);
        let is_folder =
            |parent| matches!(plan.files.get(parent), None | Some(ContextEntry::Directory));
        if !parents.all(is_folder) {
            return wrong(path);
        }
    }
    for step in &plan.steps {
        if let Step::Copy { to, .. } = step
            && (!to.starts_with('/') || to.split('/').any(|part| part == ".."))
        {
            return wrong(to);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use imagespec_core::context::BuildSettings;

    use super::*;

    #[test]
    fn requirements_are_names_and_versions() {
        for text in [
            "",
            "numpy==2.2.6\n# more\nrequests>=2 ; python_version > '3.8'  # why",
            "numpy[x]==2.2.6 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n",
        ] {
            lines(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        for text in [
            "-r /etc/passwd",
            "--index-url http://169.254.169.254/",
            "--find-links=/",
            "-e .",
            "./local",
            "/srv/local.whl",
            "file:///etc/passwd",
            "a @ file:///etc/passwd",
            "a @ git+https://host/a",
            "https://host/a.whl",
            "a==1 --config-settings x=y",
            "a==1 --global-option=x --hash=sha256:00",
            "\\\n-r x",
            "a ; python_version < '3'\u{fffd}\u{fffd}",
        ] {
            assert!(lines(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_of_registries_are_the_services_alone() {
        let mut wanted = serde_json::json!({
            "image": "app",
            "plan": {
                "format": 1, "platforms": ["linux/amd64"], "base": {"kind": "debian", "suite": "bookworm"},
                "python": {"version": null, "exec": null}, "steps": [], "entrypoint": null, "env": {}, "files": {},
            },
            "destination": {"registry": "r.example", "name": "app", "tag": "1", "extra_tags": []},
            "settings": BuildSettings::default(),
        });
        let vetted = |wanted: &serde_json::Value| {
            let wanted = serde_json::from_value(wanted.clone()).expect("a request");
            let limits = Limits {
                trusted: true,
                ..Limits::default()
            };
            request(&wanted, &limits)
        };
        vetted(&wanted).expect("a request that is sound");
        wanted["plan"]["registry_config"] = "registries.json".into();
        let error = vetted(&wanted).expect_err("a file of somebody else's machine");
        assert_eq!(error.field.as_deref(), Some("registry_config"));
    }

    #[test]
    fn a_registry_is_allowed_with_all_that_is_in_it() {
        let allowed = ["ghcr.io/acme".to_owned(), "localhost:5000/".to_owned()];
        for (reference, expected) in [
            ("ghcr.io/acme/app", true),
            ("ghcr.io/acme/team/app:1", true),
            ("ghcr.io/acme-evil/app", false),
            ("ghcr.io/other/app", false),
            ("ghcr.io/acme", false),
            ("localhost:5000/app", true),
            ("localhost:50001/app", false),
        ] {
            assert_eq!(is_within(reference, &allowed), expected, "{reference}");
        }
    }
}

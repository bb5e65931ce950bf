//! A plan as an engine takes it: a Dockerfile, its context, and what the build is lent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use flate2::write::GzEncoder;
use imagespec_core::context::BuildContext;
use imagespec_core::dockerfile::{
    Dialect, Dockerfile, LENT, Lowering, PINNED, Start, UV, is_lock, secret,
};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use imagespec_core::plan::{Base, BuildPlan, PackageIndex, Step};
use imagespec_core::platform::Platform;
use imagespec_core::resolve::python_of_suite;
use imagespec_debian::{Archive, ArchiveOptions};
use imagespec_python::index::{Loan, PROXIES, Settings, indexes, logins_with, network, proxies};
use imagespec_python::lock::{Libc, LockRequest, Target, pins};
use imagespec_python::uv::Uv;

use crate::tree::{DOCKERFILE, Doorman, Tree};

/// The largest secret that an engine takes, in bytes.
const LARGEST: usize = 500 << 10;
/// Releases of Debian whose sources are lent where the release of the base is not known.
const SUITES: [&str; 3] = ["bullseye", "bookworm", "trixie"];
/// Where a plan is lowered, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// This machine.
    pub host: &'a Host,
    /// Where Debian packages come from, as options say.
    pub archive: &'a ArchiveOptions,
    /// Who reads the Dockerfile.
    pub dialect: Dialect,
    /// An image with uv, where whoever reads it can take it from there.
    pub uv: Option<&'a str>,
}

/// What whoever builds is given.
#[derive(Debug)]
pub struct Lowered {
    /// The Dockerfile.
    pub file: Dockerfile,
    /// The build context, the Dockerfile in it.
    pub tree: Tree,
    /// Who opens the plan's files of the context.
    pub doorman: Doorman,
    /// Secrets of the build, by the names that the Dockerfile has for them.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Proxies, by name.
    pub proxies: Vec<(String, String)>,
}

/// Lowers a plan over `base`.
pub async fn lower(
    site: Site<'_>,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    base: Start<'_>,
) -> Result<Lowered, BuildError> {
    let Site { host, archive, .. } = site;
    let python = python(host, plan, cx).await?;
    let file = dockerfile(site, plan, cx, base, python.settings.as_ref())?;
    let (mut tree, doorman) = Tree::of(&plan.files);
    tree.add(DOCKERFILE, file.text.as_bytes(), false);
    for (path, program) in &file.programs {
        tree.add(path, program.as_bytes(), true);
    }
    if file.needs_uv {
        let platform = plan
            .platforms
            .first()
            .cloned()
            .unwrap_or_else(Platform::host);
        let uv = Uv::portable(host, &platform).await?;
        let added = tree.add_program(UV, uv.path().to_owned());
        added.map_err(|error| BuildError::failed("cannot read uv").caused_by(&error))?;
    }
    if let Some(pinned) = &python.pinned {
        tree.add(PINNED, pinned.as_bytes(), false);
    }
    let mut secrets = BTreeMap::new();
    let authorities = Path::new(LENT).join("ca.pem");
    let loan = network(host, &authorities);
    lend(cx, &mut secrets, secret::NETWORK, &loan, false)?;
    if let Some(settings) = &python.settings {
        lend(
            cx,
            &mut secrets,
            secret::INDEX,
            &indexes(settings, &authorities),
            true,
        )?;
        if let Some(netrc) = settings.lent_netrc() {
            secrets.insert(secret::NETRC.to_owned(), netrc.as_bytes().to_vec());
        }
        if let Some((configuration, _)) = settings.configuration.first() {
            secrets.insert(secret::CONFIGURATION.to_owned(), read_lent(configuration)?);
        }
    }
    for (at, declared) in cx.secrets.iter().enumerate() {
        let content =
            read_lent(&declared.source).map_err(|error| error.field("pip_secret_mounts"))?;
        secrets.insert(secret::declared(at), content);
    }
    if let Some(sources) = sources(host, archive, plan)? {
        secrets.insert(secret::ARCHIVE.to_owned(), sources);
    }
    for (name, content) in &secrets {
        if content.len() > LARGEST {
            let message =
                format!("an engine takes no secret of more than {LARGEST} bytes: `{name}`");
            return Err(BuildError::input(message));
        }
    }
    Ok(Lowered {
        file,
        tree,
        doorman,
        secrets,
        proxies: proxies(host),
    })
}

/// The Dockerfile of a plan over a base.
pub(crate) fn dockerfile(
    site: Site<'_>,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
    base: Start<'_>,
    settings: Option<&Settings>,
) -> Result<Dockerfile, BuildError> {
    let targets: Vec<&Path> = cx.secrets.iter().map(|secret| &*secret.target).collect();
    let none = PackageIndex::default();
    let lowering = Lowering {
        dialect: site.dialect,
        base,
        uv: site.uv,
        options: settings.map_or(&[], |settings| &settings.options),
        index: settings.map_or(&none, |settings| &settings.declared),
        bytecode: cx.settings.bytecode(),
        secrets: &targets,
    };
    Dockerfile::of(plan, &lowering)
}

/// What uv is told of indexes where the plan's Python packages are installed.
pub(crate) fn settings(
    host: &Host,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<Option<Settings>, BuildError> {
    let logins = logins_with(cx.logins, cx.secrets);
    let index = plan.steps.iter().find_map(|step| match step {
        Step::PythonPackages {
            requirements,
            packages,
            index,
        } if requirements.is_some() || !packages.is_empty() => Some(index),
        _ => None,
    });
    index
        .map(|index| Settings::of(host, index, &logins))
        .transpose()
}

/// What the installation of Python packages depends on.
struct Python {
    settings: Option<Settings>,
    /// What a lock file pins.
    pinned: Option<String>,
}

async fn python(
    host: &Host,
    plan: &BuildPlan,
    cx: &BuildContext<'_>,
) -> Result<Python, BuildError> {
    let mut python = Python {
        settings: settings(host, plan, cx)?,
        pinned: None,
    };
    let logins = logins_with(cx.logins, cx.secrets);
    for step in &plan.steps {
        let Step::PythonPackages {
            requirements,
            packages,
            index,
        } = step
        else {
            continue;
        };
        let lock = requirements.as_ref().filter(|file| is_lock(file.kind));
        if lock.is_none() {
            continue;
        }
        let platform = plan.platforms.first().cloned();
        let target = Target {
            python: minor(plan)?,
            platform: platform.unwrap_or_else(Platform::host),
            libc: Libc::Glibc(2, 17),
        };
        let request = LockRequest {
            requirements: lock,
            packages,
            index,
            logins: &logins,
            entries: &plan.files,
            files: cx.files,
            target: &target,
            refresh: false,
            interpreter: None,
            workshop: None,
            provided: &[],
            secrets: &[],
        };
        let (pinned, settings) = pins(host, request).await?;
        python.pinned = Some(pinned);
        python.settings = Some(settings);
    }
    Ok(python)
}

/// Minor version of the interpreter that a lock file is read for.
fn minor(plan: &BuildPlan) -> Result<u32, BuildError> {
    let declared = plan.python.version.as_deref();
    let version = match &plan.base {
        Base::Debian { suite } if !plan.has_conda() => declared.or_else(|| python_of_suite(suite)),
        _ => declared,
    };
    let minor = version.and_then(|version| version.split('.').nth(1)?.parse().ok());
    minor.ok_or_else(|| {
        BuildError::input(
            "a lock file is read for a version of Python, and that of the base is not known",
        )
        .field("python_version")
        .hint("say which Python the base has: `python_version = \"3.12\"`")
    })
}

/// Shell commands that export what is lent, and the authorities.
fn lend(
    cx: &BuildContext<'_>,
    secrets: &mut BTreeMap<String, Vec<u8>>,
    name: &str,
    loan: &Loan,
    tells: bool,
) -> Result<(), BuildError> {
    let mut text = String::new();
    let authorities = Path::new(LENT).join("ca.pem");
    let mut kept_here = Vec::new();
    for (source, target) in &loan.mounts {
        if *target == authorities {
            secrets.insert(secret::AUTHORITIES.to_owned(), read_lent(source)?);
        } else if !target.ends_with("uv.toml") {
            kept_here.push(source.display().to_string());
        }
    }
    for (variable, value) in &loan.env {
        let is_here = kept_here.iter().any(|path| value.contains(path.as_str()));
        let is_proxy = PROXIES.contains(&variable.as_str());
        if variable == "SSL_CERT_FILE" || is_proxy {
            continue;
        }
        if is_here {
            if tells {
                cx.progress.notice(format!(
                    "the engine does not see what `{variable}` names: `{value}`"
                ));
            }
            continue;
        }
        let value = imagespec_core::shell::word(value);
        let _ = writeln!(text, "export {variable}={value}");
    }
    if !text.is_empty() {
        secrets.insert(name.to_owned(), text.into_bytes());
    }
    Ok(())
}

/// A file that a build is lent.
pub fn read_lent(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs_err::read(path).map_err(|error| {
        let message = format!("cannot read what the build is lent: `{}`", path.display());
        BuildError::input(message).caused_by(&error)
    })
}

/// The machine's sources of Debian packages, for a base that has none of its own.
fn sources(
    host: &Host,
    options: &ArchiveOptions,
    plan: &BuildPlan,
) -> Result<Option<Vec<u8>>, BuildError> {
    let wants = |step: &Step| matches!(step, Step::AptPackages { .. } | Step::Run { .. });
    if !plan.steps.iter().any(wants) {
        return Ok(None);
    }
    let http = imagespec_http::Client::new(host)?;
    // A machine that has none has nothing to lend.
    let Ok(archive) = Archive::open(http, host, options) else {
        return Ok(None);
    };
    let suites = match &plan.base {
        Base::Debian { suite } => vec![suite.as_str()],
        _ => SUITES.to_vec(),
    };
    let packed = |error: io::Error| {
        BuildError::failed("cannot pack the sources of Debian packages").caused_by(&error)
    };
    let mut tar = Packed::default();
    for suite in suites {
        let folder = format!("{LENT}/apt/{suite}");
        let lists = archive.lists(suite, Path::new(&folder))?;
        if lists.sources.is_empty() {
            continue;
        }
        let settings = format!(
            "Dir::Etc::SourceList \"/dev/null\";\nDir::Etc::SourceParts \"{folder}/sources\";\n{}",
            lists.settings
        );
        tar.add(&format!("{suite}/apt.conf"), settings.as_bytes())
            .map_err(packed)?;
        let sources = format!("{suite}/sources/imagespec.sources");
        tar.add(&sources, lists.sources.as_bytes())
            .map_err(packed)?;
        for (name, key) in &lists.keyrings {
            tar.add(&format!("{suite}/{name}"), key).map_err(packed)?;
        }
    }
    tar.finish().map_err(packed)
}

/// An archive in which the same content stands once.
struct Packed {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    known: BTreeMap<Vec<u8>, String>,
}

impl Default for Packed {
    fn default() -> Self {
        let gzip = GzEncoder::new(Vec::new(), flate2::Compression::default());
        Self {
            tar: tar::Builder::new(gzip),
            known: BTreeMap::new(),
        }
    }
}

impl Packed {
    fn add(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(0);
        if let Some(known) = self.known.get(content) {
            header.set_entry_type(tar::EntryType::Symlink);
            return self
                .tar
                .append_link(&mut header, path, format!("{LENT}/apt/{known}"));
        }
        header.set_size(content.len() as u64);
        self.tar.append_data(&mut header, path, content)?;
        self.known.insert(content.to_vec(), path.to_owned());
        Ok(())
    }

    fn finish(self) -> io::Result<Option<Vec<u8>>> {
        if self.known.is_empty() {
            return Ok(None);
        }
        self.tar.into_inner()?.finish().map(Some)
    }
}

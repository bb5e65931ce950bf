//! A plan as a Dockerfile: the lowering for builders that leave the work to a container engine, and the way out for
//! whoever wants one.
//!
//! It is written for the frontend that every engine since Docker 20.10 brings along: no `# syntax` line, which would
//! have to be pulled, no here-documents, no linked copies. What the build is lent is mounted below [`LENT`], a folder
//! of the container's own `/dev`, so that not even a mount point stays behind in a layer.
//!
//! Kaniko's executors mount nothing for a `RUN`, all but one of them. What they need is around them in their pod, where
//! none of it enters a layer: the context that they have unpacked, and volumes. Each `RUN` of theirs begins with links
//! from [`LENT`] to there.

mod mounts;
mod prepare;
mod python;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use indexmap::IndexMap;

use self::mounts::Mounts;
use crate::contract::{self, USER, USER_ID, VENV, WORKDIR};
use crate::error::BuildError;
use crate::plan::{Base, BuildPlan, ContextEntry, PackageIndex, RequirementsKind, Step};
use crate::shell::word as shell;

/// The folder of the build context that holds what the plan does not name.
pub const TOOLS: &str = ".imagespec";
/// Path in the context of uv, which the context needs for [`Dockerfile::needs_uv`].
pub const UV: &str = ".imagespec/bin/uv";
/// Path in the context of the requirements that a lock file was turned into.
pub const PINNED: &str = ".imagespec/pinned.txt";
/// Where programs of other images are mounted, and where Kaniko's executors are brought them.
const PROGRAMS: &str = "/dev/imagespec/programs";
/// Where the container finds what it is lent. Around Kaniko's executors, a volume that everybody may write to.
pub const LENT: &str = "/dev/imagespec";
/// Where Kaniko's executors have unpacked the context.
pub const UNPACKED: &str = "/kaniko/buildcontext";
/// Where Kaniko's executors find the secrets of the build by name, but the declaration's own, which are where they
/// are declared to be.
pub const SECRETS: &str = "/kaniko/secrets";

/// A base need not know root by name.
const ROOT: &str = "USER 0:0";

/// Secrets of the build, by the names that the Dockerfile has for them. All may be missing.
pub mod secret {
    /// Shell commands that export where packages come from, logins included: for their installation alone.
    pub const INDEX: &str = "imagespec-index";
    /// Shell commands that export where packages come from, without logins: for everything else that runs.
    pub const NETWORK: &str = "imagespec-network";
    /// Authorities for TLS, found at `/dev/imagespec/ca.pem`.
    pub const AUTHORITIES: &str = "imagespec-ca";
    /// Logins in netrc's format, found at `/dev/imagespec/netrc`.
    pub const NETRC: &str = "imagespec-netrc";
    /// A configuration of uv, found at `/dev/imagespec/uv.toml`.
    pub const CONFIGURATION: &str = "imagespec-uv";
    /// What can be written into a build context, and its name there, in the folder of programs: it holds no login.
    pub const PUBLIC: [(&str, &str); 3] = [
        (NETWORK, "network"),
        (AUTHORITIES, "ca.pem"),
        (ARCHIVE, "apt.tar"),
    ];

    /// An archive of apt's sources and keys, for each release of Debian: `apt.conf` and what it names, unpacked to
    /// `/dev/imagespec/apt`.
    pub const ARCHIVE: &str = "imagespec-apt";

    /// The name of one of the declaration's own secrets.
    pub fn declared(at: usize) -> String {
        format!("imagespec-pip-{at}")
    }
}

/// Who a Dockerfile is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `BuildKit`, and whoever mounts what a `RUN` names.
    #[default]
    Buildkit,
    /// Kaniko's executors.
    Kaniko,
}

/// What a Dockerfile depends on beside the plan.
#[derive(Debug, Clone, Copy)]
pub struct Lowering<'a> {
    /// Who it is for.
    pub dialect: Dialect,
    /// What stands for the plan's base.
    pub base: Start<'a>,
    /// An image with uv as `/uv`. Without one, uv is in the context.
    pub uv: Option<&'a str>,
    /// Options of uv that the declaration's `pip_extra_args` come to.
    pub options: &'a [String],
    /// The indexes that the declaration names, without logins.
    pub index: &'a PackageIndex,
    /// Whether Python packages are compiled to bytecode.
    pub bytecode: bool,
    /// Where the declaration's own secrets are found while Python packages are installed.
    pub secrets: &'a [&'a Path],
}

/// What a Dockerfile starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// An image that whoever builds knows by this reference.
    Image(&'a str),
    /// Our own base, whose layers are archives of the context, by their paths.
    Layers(&'a [String]),
}

/// A Dockerfile, and what its build context holds beside the plan's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its text.
    pub text: String,
    /// Its instructions that an engine counts, in order: `FROM` is the first.
    pub instructions: Vec<Instruction>,
    /// Small programs of the context, by path.
    pub programs: BTreeMap<String, String>,
    /// Whether the context needs [`UV`].
    pub needs_uv: bool,
    /// Whether the context needs [`PINNED`].
    pub needs_pinned: bool,
}

/// An instruction as a person knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it does: `install Debian packages: curl git`. Empty where nobody cares.
    pub title: String,
    /// The field of the spec that asks for it.
    pub field: String,
}

impl Dockerfile {
    /// Lowers a plan of one platform.
    pub fn of(plan: &BuildPlan, lowering: &Lowering<'_>) -> Result<Self, BuildError> {
        let mut writer = Writer {
            plan,
            lowering,
            file: Self {
                text: String::new(),
                instructions: Vec::new(),
                programs: BTreeMap::new(),
                needs_uv: false,
                needs_pinned: false,
            },
        };
        writer.write()?;
        Ok(writer.file)
    }
}

struct Writer<'a> {
    plan: &'a BuildPlan,
    lowering: &'a Lowering<'a>,
    file: Dockerfile,
}

/// A program of the context that every shell reads first: what it is lent, as variables. What is secret is mounted
/// beside the folder of this program; what is not may stand in it.
const LEND: &str = r#"# Exports what the build is lent; nothing of it stays in a layer.
lent() {
  for place in /dev/imagespec /dev/imagespec/bin; do
    if [ -f "$place/$1" ]; then echo "$place/$1"; return; fi
  done
}
for file in network index; do
  if [ -n "$(lent $file)" ]; then . "$(lent $file)"; fi
done
if [ -n "$(lent ca.pem)" ]; then SSL_CERT_FILE=$(lent ca.pem); export SSL_CERT_FILE; fi
if [ -n "$(lent netrc)" ]; then NETRC=$(lent netrc); export NETRC; fi
if [ -n "$(lent uv.toml)" ]; then UV_CONFIG_FILE=$(lent uv.toml); export UV_CONFIG_FILE; fi
export UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
"#;
/// A program of the context for shells of root: apt takes the sources it is lent where the base has none of its own.
const ARCHIVE: &str = r#"if [ -n "$(lent apt.tar)" ]; then
  rm -rf /dev/imagespec/apt
  mkdir -p /dev/imagespec/apt
  tar -xzf "$(lent apt.tar)" -C /dev/imagespec/apt
  own=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -E '^(deb|URIs:)' || true)
  suite=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}" || true)
  settings=/dev/imagespec/apt/$suite/apt.conf
  if [ -z "$own" ] && [ -f "$settings" ]; then
    if [ -n "$(lent ca.pem)" ]; then echo "Acquire::https::CaInfo \"$(lent ca.pem)\";" >>"$settings"; fi
    export APT_CONFIG="$settings"
  fi
fi
"#;

impl Writer<'_> {
    fn write(&mut self) -> Result<(), BuildError> {
        match self.lowering.base {
            Start::Image(base) => {
                check_reference(base, "base_image")?;
                self.line(&format!("FROM {base}"));
                self.count("start from", base, "base_image");
            }
            Start::Layers(layers) => {
                self.line("FROM scratch");
                self.count("start from", "nothing", "base_image");
                for layer in layers {
                    let paths = json(&[layer.clone(), "/".to_owned()]);
                    self.line(&format!("ADD {paths}"));
                    self.count("add a layer of", "the base", "base_image");
                }
                // An entrypoint takes away the command of a base, but not one of the same file.
                if self.plan.entrypoint.is_none() {
                    self.line(r#"CMD ["/bin/bash"]"#);
                }
            }
        }
        self.line(ROOT);
        if matches!(self.plan.base, Base::Reference { .. }) && !self.plan.has_made_base() {
            self.prepare();
        }
        let plan = self.plan;
        let mut environment = Some(self.environment()?);
        for step in &plan.steps {
            let first = matches!(
                step,
                Step::AptPackages { .. } | Step::CondaPackages { .. } | Step::PythonPackages { .. }
            );
            if !first && let Some(environment) = environment.take() {
                self.line(&environment);
            }
            self.step(step)?;
        }
        if let Some(environment) = environment {
            self.line(&environment);
        }
        // Last, as every change of the plan changes it.
        let id = quoted("_F_IMG_ID", &plan.image_id())?;
        self.line(&format!("ENV _F_IMG_ID={id}"));
        self.line(&format!("WORKDIR {WORKDIR}"));
        // Nothing that a person has to be told of.
        self.count("", "", "name");
        self.line(&format!("USER {USER}"));
        if let Some(entrypoint) = &plan.entrypoint {
            self.line(&format!("ENTRYPOINT {}", json(entrypoint)));
            if entrypoint.is_empty() {
                self.line("CMD []");
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) {
        self.file.text.push_str(line);
        self.file.text.push('\n');
    }

    fn count(&mut self, does: &str, what: &str, field: &str) {
        self.file.instructions.push(Instruction {
            title: format!("{does} {what}").trim().to_owned(),
            field: field.to_owned(),
        });
    }

    fn step(&mut self, step: &Step) -> Result<(), BuildError> {
        match step {
            Step::AptPackages { packages } => self.apt_packages(packages),
            Step::PythonPackages {
                requirements,
                packages,
                index: _,
            } => self.python_packages(requirements.as_ref(), packages)?,
            Step::Copy { field, from, to } => {
                // Nothing to copy is no folder of the context.
                if self.plan.entries(from).next().is_some() {
                    let owner = format!("{USER_ID}:{USER_ID}");
                    let paths = json(&[format!("{from}/"), format!("{to}/")]);
                    self.line(&format!("COPY --chown={owner} {paths}"));
                    self.count("copy files to", to, field);
                    self.own_links(field, from, to);
                }
            }
            Step::Run { commands } => {
                for command in commands {
                    self.command(command);
                }
            }
            // They are in what it starts from.
            Step::CondaPackages { .. } => {}
        }
        Ok(())
    }

    /// Kaniko's executors leave symbolic links to root.
    fn own_links(&mut self, field: &str, from: &str, to: &str) {
        let links: Vec<_> = self
            .plan
            .entries(from)
            .filter(|(_, entry)| matches!(entry, ContextEntry::Symlink { .. }))
            .map(|(path, _)| shell(&format!("{to}/{path}")))
            .collect();
        if self.lowering.dialect == Dialect::Kaniko && !links.is_empty() {
            let links = links.join(" ");
            self.line(&format!("RUN chown -h {USER_ID}:{USER_ID} {links}"));
            self.count("", "", field);
        }
    }

    /// The environment, all but what changes with the plan.
    fn environment(&self) -> Result<String, BuildError> {
        const BASE_PATH: &str = "\u{1}";
        let mut base = IndexMap::new();
        let is_ours = matches!(self.plan.base, Base::Debian { .. });
        if !is_ours {
            base.insert("PATH".to_owned(), BASE_PATH.to_owned());
        }
        let mut env = contract::environment(self.plan, &base);
        env.shift_remove("_F_IMG_ID");
        if !is_ours && self.plan.has_made_base() {
            for name in contract::extended(self.plan) {
                env.shift_remove(name);
            }
        }
        let mut text = "ENV".to_owned();
        for (name, value) in &env {
            let declared = self.plan.env.contains_key(name);
            let mut value = if declared {
                quoted(name, value)?
            } else {
                quoted(name, value)?.replace(BASE_PATH, "$PATH")
            };
            if name == "LD_LIBRARY_PATH" && !declared && !is_ours {
                value.insert_str(value.len() - 1, "${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}");
            }
            let _ = write!(text, " \\\n    {name}={value}");
        }
        Ok(text)
    }

    /// What every shell of the build mounts.
    fn mounts(&mut self) -> Mounts {
        let bin = format!("{TOOLS}/bin");
        for (name, program) in [("lend", LEND), ("archive", ARCHIVE)] {
            let path = format!("{bin}/{name}");
            self.file.programs.insert(path, program.to_owned());
        }
        let mut mounts = Mounts::of(self.lowering.dialect);
        mounts.bind(&bin, &format!("{LENT}/bin"));
        // Read by users of many names: root, the image's, and those that apt and others make themselves.
        mounts.public_secret(secret::NETWORK, &format!("{LENT}/network"));
        mounts.public_secret(secret::AUTHORITIES, &format!("{LENT}/ca.pem"));
        mounts
    }

    fn prepare(&mut self) {
        let program = format!("{TOOLS}/bin/prepare");
        self.file
            .programs
            .insert(program, prepare::PROGRAM.to_owned());
        let mut mounts = Mounts::of(self.lowering.dialect);
        mounts.bind(&format!("{TOOLS}/bin"), &format!("{LENT}/bin"));
        mounts.depend_on(prepare::PROGRAM.as_bytes());
        let python = &self.plan.python;
        let mut line = format!("RUN {mounts}sh {LENT}/bin/prepare");
        for value in [&python.exec, &python.version] {
            let _ = write!(line, " {}", shell(value.as_deref().unwrap_or_default()));
        }
        self.line(&line);
        self.count("add", "the user and the virtual environment", "base_image");
    }

    fn apt_packages(&mut self, packages: &[String]) {
        let mut mounts = self.mounts();
        mounts.secret(secret::ARCHIVE, &format!("{LENT}/apt.tar"));
        let apt = match self.lowering.dialect {
            Dialect::Buildkit => {
                mounts.cache("apt", "/var/cache/apt", 0);
                String::new()
            }
            Dialect::Kaniko => {
                let cache = format!("{LENT}/apt-cache");
                mounts.folder(&format!("{cache}/archives/partial"));
                format!(" -o=Dir::Cache={cache}")
            }
        };
        let names: Vec<_> = packages.iter().map(|name| shell(name)).collect();
        self.line(&format!(
            "RUN {mounts}set -e; . {LENT}/bin/lend; . {LENT}/bin/archive; \\\n    \
             export DEBIAN_FRONTEND=noninteractive; rm -f /etc/apt/apt.conf.d/docker-clean; \\\n    \
             apt-get update --quiet=2{apt}; \\\n    \
             apt-get install --quiet=2{apt} -o=Dpkg::Use-Pty=0 --yes --no-install-recommends {}; \\\n    \
             find /var/lib/apt/lists /var/log/apt -type f -delete; rm -rf /var/lib/apt/lists/auxfiles; \\\n    \
             rm -f /var/log/dpkg.log /var/log/alternatives.log /var/lib/dpkg/*-old /var/cache/debconf/*-old",
            names.join(" ")
        ));
        self.count(
            "install Debian packages:",
            &packages.join(" "),
            "apt_packages",
        );
    }

    fn command(&mut self, command: &str) {
        let pip = format!("{TOOLS}/bin/pip");
        self.file.programs.insert(pip, contract::PIP.to_owned());
        let mut mounts = self.mounts();
        self.own_uv(&mut mounts);
        mounts.secret(secret::ARCHIVE, &format!("{LENT}/apt.tar"));
        let programs = match self.lowering.uv {
            Some(_) => format!(":{PROGRAMS}"),
            None => String::new(),
        };
        let shell = format!(
            ". {LENT}/bin/lend; . {LENT}/bin/archive; cd {WORKDIR}; \
             export PATH=\"$PATH:{LENT}/bin{programs}\" HOME=/root UV_PYTHON={VENV}/bin/python UV_NO_CACHE=1; \
             shell=/bin/sh; [ ! -x /bin/bash ] || shell=/bin/bash; code=0; \"$shell\" -c \"$0\" || code=$?; rm -f {VENV}/.lock; exit $code"
        );
        let (mounts, links) = mounts.apart();
        let shell = format!("{links}{shell}");
        let words = ["/bin/sh", "-ec", &shell, command].map(str::to_owned);
        self.line(&format!("RUN {mounts}{}", json(&words)));
        let first = command.lines().next().unwrap_or_default();
        let rest = if command.lines().count() > 1 {
            " …"
        } else {
            ""
        };
        self.count("run", &format!("`{first}`{rest}"), "commands");
    }
}

/// Refuses what would be more than a reference where it is written.
fn check_reference(image: &str, field: &str) -> Result<(), BuildError> {
    let is_other = |c: char| c.is_whitespace() || c.is_control() || "\"',$".contains(c);
    if image.is_empty() || image.contains(is_other) {
        let message = format!("not a reference of an image: `{image}`");
        return Err(BuildError::input(message).field(field));
    }
    Ok(())
}

/// Whether a file pins everything it leads to.
pub const fn is_lock(kind: RequirementsKind) -> bool {
    matches!(
        kind,
        RequirementsKind::UvLock | RequirementsKind::PoetryLock
    )
}

fn json(words: &[String]) -> String {
    serde_json::to_string(words).unwrap_or_default()
}

/// A value of `ENV`, in which nothing is expanded.
fn quoted(name: &str, value: &str) -> Result<String, BuildError> {
    if value.contains(['\n', '\r']) {
        let message = format!("a Dockerfile cannot say a value of several lines: `{name}`");
        return Err(BuildError::input(message)
            .field("env")
            .hint("builder `native` takes it: `--builder native`"));
    }
    let mut quoted = "\"".to_owned();
    for c in value.chars() {
        if "\\\"$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Ok(quoted)
}

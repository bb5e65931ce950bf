//! What layers are made from, so that each can be made again.

use imagespec_core::contract::{CONDA_PREFIX, USER};
use imagespec_core::digest::{Digest, Framed};
use imagespec_debian::{LayerPlan, Package};
use imagespec_oci::cache::Layer;
use imagespec_python::lock::{Libc, LockedWheel};
use imagespec_python::standalone::Standalone;
use imagespec_python::venv::Venv;
use imagespec_python::wheel::Layout;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::inspect::Account;

/// A layer of an image in the making. Its blob need not be here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LazyLayer {
    pub(crate) layer: Layer,
    pub(crate) origin: Origin,
}

/// Where the blob of a layer comes from when somebody needs it and it is not in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// It is made again.
    Recipe {
        /// What it depends on, by which it is known.
        key: Digest,
        recipe: Box<Recipe>,
    },
    /// A repository of a registry has it.
    Registry {
        registry: String,
        repository: String,
    },
    /// Nobody: it came with an image that another builder made.
    Store,
}

/// What a layer is made from. Layers below it are those of its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Recipe {
    /// The data of Debian packages.
    Debian(LayerPlan),
    /// The state of a system of exactly these packages.
    State(Vec<Package>),
    /// The users of a base of a registry, with the image's own.
    Accounts(Vec<Account>),
    /// A Python that Debian does not have.
    Standalone(Standalone),
    /// The virtual environment itself.
    Venv(Venv),
    /// Wheels in a virtual environment.
    Wheels {
        title: String,
        wheels: Vec<LockedWheel>,
        layout: Layout,
    },
    /// The bytecode of wheels.
    Bytecode {
        title: String,
        wheels: Vec<LockedWheel>,
        layout: Layout,
        interpreter: Interpreter,
    },
    /// The bytecode of the interpreter's own modules, and of what is installed with it.
    StandardLibrary(Interpreter),
    /// Files of the build context.
    Copy {
        field: String,
        from: String,
        to: String,
    },
    /// Commands of a spec.
    Commands(Commands),
    /// A command that a base wants run in images made from it.
    Trigger(Trigger),
    /// What belongs to the user of images, over a base that has other ids for it.
    Owned {
        uid: u32,
        gid: u32,
        recipe: Box<Recipe>,
    },
    /// Conda packages in their environment.
    Conda {
        title: String,
        packages: Vec<imagespec_conda::Package>,
        layout: imagespec_conda::Layout,
    },
    /// What a Conda environment says of itself.
    CondaRecords {
        packages: Vec<imagespec_conda::Package>,
        layout: imagespec_conda::Layout,
        specs: Vec<String>,
    },
    /// What Conda packages run once they are installed.
    CondaScripts(Vec<imagespec_conda::Package>),
    /// Packages installed by the image's own apt.
    Apt {
        added: Vec<Package>,
        scripted: Vec<String>,
    },
}

impl Recipe {
    /// What a layer of it is called.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Debian(plan) => plan.title.clone(),
            Self::State(_) => "debian state".to_owned(),
            Self::Accounts(_) => format!("user {USER}"),
            Self::Standalone(python) => format!("python {}", python.version()),
            Self::Venv(_) => "virtual environment".to_owned(),
            Self::Wheels { title, .. } | Self::Conda { title, .. } => title.clone(),
            Self::Bytecode { title, .. } => format!("bytecode of {title}"),
            Self::StandardLibrary(interpreter) if interpreter.is_conda() => {
                "bytecode of conda packages".to_owned()
            }
            Self::StandardLibrary(_) => "bytecode of the standard library".to_owned(),
            Self::Copy { field, .. } => format!("copy {field}"),
            Self::Commands(run) => format!("commands: {}", run.lines.join(" && ")),
            Self::Trigger(trigger) => format!("onbuild {}", trigger.text),
            Self::Owned { recipe, .. } => recipe.title(),
            Self::CondaRecords { .. } => "records of conda packages".to_owned(),
            Self::CondaScripts(packages) => {
                let names: Vec<_> = packages
                    .iter()
                    .map(imagespec_conda::Package::name)
                    .collect();
                format!("scripts of conda packages: {}", names.join(", "))
            }
            Self::Apt { added, scripted } => {
                let names: Vec<_> = added.iter().map(|package| package.name.as_str()).collect();
                let names = names.join(", ");
                if scripted.is_empty() {
                    return format!("debian {names}");
                }
                format!("debian {names} with the scripts of {}", scripted.join(", "))
            }
        }
    }

    /// Whether it runs what may do anything, so that `--force` makes it anew.
    pub(crate) const fn runs(&self) -> bool {
        matches!(
            self,
            Self::Commands(_) | Self::Trigger(_) | Self::Apt { .. } | Self::CondaScripts(_)
        )
    }

    /// The wheels it is made from.
    pub(crate) fn wheels(&self) -> &[LockedWheel] {
        match self {
            Self::Wheels { wheels, .. } | Self::Bytecode { wheels, .. } => wheels,
            Self::Owned { recipe, .. } => recipe.wheels(),
            _ => &[],
        }
    }

    /// The Conda packages it is made from.
    pub(crate) fn conda(&self) -> &[imagespec_conda::Package] {
        match self {
            Self::Conda { packages, .. } => packages,
            Self::Owned { recipe, .. } => recipe.conda(),
            _ => &[],
        }
    }

    /// Whether it is made of files of the build context.
    pub(crate) fn is_copy(&self) -> bool {
        match self {
            Self::Owned { recipe, .. } => recipe.is_copy(),
            recipe => matches!(recipe, Self::Copy { .. }),
        }
    }
}

/// Commands of a spec, and what of the layers below they are run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commands {
    /// The Debian suite, if it is one.
    pub(crate) suite: Option<String>,
    pub(crate) shell: String,
    pub(crate) libc: Option<Libc>,
    pub(crate) lines: Vec<String>,
    pub(crate) env: IndexMap<String, String>,
    /// Whether they are of people who are not trusted with this machine, and run without its network.
    pub(crate) strange: bool,
}

/// A command of an `ONBUILD` of a base, and what it is run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trigger {
    /// The trigger as it is written.
    pub(crate) text: String,
    pub(crate) argv: Vec<String>,
    /// The Debian suite, if it is one.
    pub(crate) suite: Option<String>,
    pub(crate) env: IndexMap<String, String>,
    pub(crate) cwd: String,
    /// Ids of the user and the group that it runs as.
    pub(crate) ids: (u32, u32),
}

impl Trigger {
    /// All that its layer depends on beside the layers below.
    pub(crate) fn frame(&self, key: &mut Framed) {
        key.number(self.ids.0.into()).number(self.ids.1.into());
        key.text(&self.cwd).list(&self.argv, |key, word| {
            key.text(word);
        });
        key.list(&self.env, |key, (name, value)| {
            key.text(name).text(value);
        });
    }
}

/// An interpreter of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interpreter {
    /// Its absolute path, through no link.
    pub(crate) program: String,
    /// Minor version of Python 3.
    pub(crate) minor: u32,
    /// The diff ids of the layers that it stands on.
    pub(crate) layers: Vec<Digest>,
}

impl Interpreter {
    /// `3.11`.
    pub(crate) fn version(&self) -> String {
        format!("3.{}", self.minor)
    }

    /// The folder below which it is installed: `/usr`.
    pub(crate) fn prefix(&self) -> &str {
        let folder = self.program.rsplit_once("/bin/");
        folder.map_or("/usr", |(prefix, _)| prefix)
    }

    /// Whether it is that of a Conda environment.
    pub(crate) fn is_conda(&self) -> bool {
        self.program.starts_with(CONDA_PREFIX)
    }

    /// Its cache tag: `cpython-311`.
    pub(crate) fn tag(&self) -> String {
        format!("cpython-3{}", self.minor)
    }
}

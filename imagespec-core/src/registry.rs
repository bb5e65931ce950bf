//! Builders by name: the one file that names `inventory`.

use std::collections::BTreeMap;

use crate::builder::BuilderFactory;
use crate::error::BuildError;

/// How a builder presents itself. A builder's crate exports one as `pub const ENTRY` and submits it with
/// [`register_builder!`](crate::register_builder).
#[derive(Debug, Clone, Copy)]
pub struct BuilderEntry {
    /// The name specs and flags use.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// A few words on where and how it builds.
    pub summary: &'static str,
    /// The builder that takes over where this one cannot work and was not asked for by flag.
    pub fallback: Option<&'static str>,
    /// The builder that makes our own base for this one: see
    /// [`Builder::base_output`](crate::builder::Builder::base_output).
    pub base_maker: Option<&'static str>,
    /// The names of its options, each with what it means.
    pub options: &'static [(&'static str, &'static str)],
    /// Makes the builder.
    pub create: BuilderFactory,
}

impl BuilderEntry {
    /// The error of an option that the builder does not know.
    pub fn unknown_option(&self, option: &str) -> BuildError {
        let known: Vec<_> = self.options.iter().map(|(name, _)| *name).collect();
        let known = match known.as_slice() {
            [] => "it has none".to_owned(),
            known => format!("known options: {}", known.join(", ")),
        };
        let message = format!("builder `{}` has no option: `{option}`", self.name);
        BuildError::input(message)
            .field("builder_options")
            .hint(known)
    }

    /// The error of an option whose value is not what is expected.
    pub fn wrong_option(
        &self,
        option: &str,
        expected: &str,
        value: &serde_json::Value,
    ) -> BuildError {
        BuildError::input(format!(
            "option `{option}` of builder `{}`: expected {expected}: `{value}`",
            self.name
        ))
        .field("builder_options")
    }
}

/// A submitted entry. Only [`register_builder!`](crate::register_builder) makes these.
#[doc(hidden)]
#[derive(Debug)]
pub struct Submitted(pub BuilderEntry);

inventory::collect!(Submitted);

/// Registers a builder by its [`BuilderEntry`], in every program its crate is linked into.
///
/// A crate that is only listed in `Cargo.toml` is *not* linked: the program also needs
/// `use the_builder as _;`.
#[macro_export]
macro_rules! register_builder {
    ($entry:expr) => {
        $crate::__inventory::submit! { $crate::registry::Submitted($entry) }
    };
}

/// The builders a program knows.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    entries: BTreeMap<&'static str, BuilderEntry>,
}

impl Registry {
    /// All builders linked into this program.
    pub fn linked() -> Result<Self, BuildError> {
        Self::new(inventory::iter::<Submitted>().map(|submitted| submitted.0))
    }

    /// A registry of the given entries. Two that claim one name are an error.
    pub fn new(entries: impl IntoIterator<Item = BuilderEntry>) -> Result<Self, BuildError> {
        let mut registry = Self::default();
        let mut taken = BTreeMap::new();
        for entry in entries {
            for name in std::iter::once(&entry.name).chain(entry.aliases) {
                if let Some(other) = taken.insert(*name, entry.name) {
                    return Err(BuildError::input(format!(
                        "two builders claim one name: `{name}`"
                    ))
                    .hint(format!(
                        "unlink one of them; `{other}` and `{}` both use it",
                        entry.name
                    )));
                }
            }
            registry.entries.insert(entry.name, entry);
        }
        Ok(registry)
    }

    /// The builder of a name or alias.
    pub fn get(&self, name: &str) -> Result<&BuilderEntry, BuildError> {
        self.entries()
            .find(|entry| entry.name == name || entry.aliases.contains(&name))
            .ok_or_else(|| {
                BuildError::input(format!("unknown builder: `{name}`"))
                    .field("builder")
                    .hint(format!("known builders: {}", self.names().join(", ")))
            })
    }

    /// The entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = &BuilderEntry> {
        self.entries.values()
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        self.entries.keys().copied().collect()
    }
}

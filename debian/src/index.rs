//! The packages of a suite for one architecture, over all its pockets.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use crate::deb822::{self, Paragraph};
use crate::depends::{self, Alternatives, Operator, Relation};
use crate::package::{Package, Pocket};
use crate::version;

/// The relations of one package, as they are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relations {
    depends: Option<Box<str>>,
    pre_depends: Option<Box<str>>,
    provides: Option<Box<str>>,
    conflicts: Option<Box<str>>,
    breaks: Option<Box<str>>,
}

/// A package that can be installed.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) package: Package,
    relations: Relations,
}

/// The packages of a suite for one architecture.
#[derive(Debug, Default)]
pub struct Index {
    architecture: String,
    /// By name, the latest version first.
    candidates: BTreeMap<Box<str>, Vec<Candidate>>,
    /// Virtual name to the names that may provide it.
    providers: BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl Relations {
    pub(crate) fn of(paragraph: &Paragraph) -> Self {
        let field = |name: &str| paragraph.get(name).map(Box::from);
        Self {
            depends: field("Depends"),
            pre_depends: field("Pre-Depends"),
            provides: field("Provides"),
            conflicts: field("Conflicts"),
            breaks: field("Breaks"),
        }
    }

    /// Pre-dependencies, then dependencies; or the text that is not one.
    pub(crate) fn depends(&self) -> Result<Vec<Alternatives>, String> {
        let mut all = parse(self.pre_depends.as_deref())?;
        all.extend(parse(self.depends.as_deref())?);
        Ok(all)
    }

    /// What it cannot be installed beside.
    pub(crate) fn excludes(&self) -> Result<Vec<Relation>, String> {
        let mut all = parse(self.conflicts.as_deref())?;
        all.extend(parse(self.breaks.as_deref())?);
        Ok(all.into_iter().flatten().collect())
    }

    /// Virtual packages it stands for, each with the version it provides.
    pub(crate) fn provides(&self) -> Vec<(String, Option<String>)> {
        let Ok(groups) = parse(self.provides.as_deref()) else {
            return Vec::new();
        };
        groups
            .into_iter()
            .flatten()
            .map(|relation| {
                let version = match relation.version {
                    Some((Operator::Equal, version)) => Some(version),
                    _ => None,
                };
                (relation.name, version)
            })
            .collect()
    }

    /// Whether one of the provided packages satisfies `relation`; one without a version satisfies none that
    /// asks for a version.
    pub(crate) fn provide(&self, relation: &Relation) -> bool {
        self.provides().iter().any(|(name, version)| {
            *name == relation.name
                && match version {
                    Some(version) => relation.allows(version),
                    None => relation.version.is_none(),
                }
        })
    }
}

fn parse(field: Option<&str>) -> Result<Vec<Alternatives>, String> {
    field.map_or(Ok(Vec::new()), depends::parse)
}

impl Candidate {
    pub(crate) fn relations(&self) -> &Relations {
        &self.relations
    }

    /// How much the archive wants it installed, least first.
    pub(crate) fn rank(&self) -> usize {
        ["required", "important", "standard", "optional"]
            .iter()
            .position(|priority| *priority == self.package.priority)
            .unwrap_or(4)
    }

    fn of(paragraph: &Paragraph, pocket: Pocket) -> Option<Self> {
        let owned = |name: &str| paragraph.get(name).map(ToOwned::to_owned);
        let filename = owned("Filename")?;
        let safe = filename
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
        let package = Package {
            name: owned("Package").filter(|name| depends::is_name(name))?,
            version: owned("Version").filter(|version| is_version(version))?,
            architecture: owned("Architecture")?,
            pocket,
            filename: safe.then_some(filename)?,
            size: paragraph.get("Size")?.parse().ok()?,
            sha256: format!("sha256:{}", paragraph.get("SHA256")?)
                .parse()
                .ok()?,
            essential: paragraph.get("Essential") == Some("yes"),
            priority: owned("Priority").unwrap_or_else(|| "optional".to_owned()),
        };
        Some(Self {
            package,
            relations: Relations::of(paragraph),
        })
    }
}

fn is_version(version: &str) -> bool {
    version.starts_with(|c: char| c.is_ascii_alphanumeric())
        && version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".+-:~".contains(&byte))
}

impl Index {
    /// An empty index of an architecture, as Debian names it.
    pub fn new(architecture: impl Into<String>) -> Self {
        Self {
            architecture: architecture.into(),
            ..Self::default()
        }
    }

    /// Adds the packages of a `Packages` file. A paragraph that is not a package is an error: the file is
    /// signed, so it is damage.
    pub fn add(&mut self, packages: &mut dyn BufRead, pocket: Pocket) -> io::Result<()> {
        deb822::read(packages, |paragraph| {
            let candidate = Candidate::of(&paragraph, pocket).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a package without name, version, file or digest",
                )
            })?;
            self.insert(candidate);
            Ok(())
        })
    }

    fn insert(&mut self, candidate: Candidate) {
        let architecture = &candidate.package.architecture;
        if architecture != "all" && *architecture != self.architecture {
            return;
        }
        let name: Box<str> = candidate.package.name.as_str().into();
        for (provided, _) in candidate.relations.provides() {
            let names = self.providers.entry(provided.into()).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
        let versions = self.candidates.entry(name).or_default();
        let at = versions.partition_point(|other| {
            version::compare(&other.package.version, &candidate.package.version).is_ge()
        });
        versions.insert(at, candidate);
    }

    /// The latest version of a real package that a relation allows.
    pub(crate) fn candidate(&self, relation: &Relation) -> Option<&Candidate> {
        if !relation.is_for(&self.architecture) {
            return None;
        }
        self.candidates
            .get(relation.name.as_str())?
            .iter()
            .find(|candidate| relation.allows(&candidate.package.version))
    }

    /// The packages that provide what a relation names, the most wanted first, then by name.
    pub(crate) fn providers(&self, relation: &Relation) -> Vec<&Candidate> {
        let names = self.providers.get(relation.name.as_str());
        let mut found: Vec<&Candidate> = names
            .into_iter()
            .flatten()
            .filter_map(|name| self.candidates.get(name)?.first())
            .filter(|candidate| candidate.relations.provide(relation))
            .collect();
        found.sort_by(|left, right| {
            (left.rank(), &left.package.name).cmp(&(right.rank(), &right.package.name))
        });
        found
    }

    /// The latest version of every package.
    pub(crate) fn latest(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates
            .values()
            .filter_map(|versions| versions.first())
    }

    /// Names that look like `name`, the likeliest first.
    pub(crate) fn similar(&self, name: &str) -> Vec<String> {
        let mut scored: Vec<(f64, &str)> = self
            .candidates
            .keys()
            .map(|other| (strsim::jaro_winkler(name, other), &**other))
            .filter(|(score, _)| *score > 0.85)
            .collect();
        scored.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(right.1)));
        scored
            .into_iter()
            .take(3)
            .map(|(_, name)| name.to_owned())
            .collect()
    }
}

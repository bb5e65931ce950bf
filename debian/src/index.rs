//! The packages of a suite for one architecture, over all its pockets.

use std::io::{self, BufRead};

use imagespec_core::digest::Digest;

use crate::deb822::{self, Paragraph};
use crate::depends::{self, Alternatives, Operator, Relation};
use crate::package::{Package, Pocket};
use crate::version;

/// The relations of one package, as they are written: one text, and where each field ends in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relations {
    text: Box<str>,
    ends: [u32; FIELDS.len()],
}

/// The fields of [`Relations`], in their order.
const FIELDS: [&str; 5] = ["Depends", "Pre-Depends", "Provides", "Conflicts", "Breaks"];

/// A package that can be installed. There are tens of thousands, so one text holds its fields.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Name, version and file, without separators.
    text: Box<str>,
    name_end: u16,
    version_end: u16,
    size: u64,
    sha256: Digest,
    pocket: Pocket,
    all: bool,
    essential: bool,
    rank: u8,
    relations: Relations,
}

/// The packages of a suite for one architecture.
#[derive(Debug, Default)]
pub struct Index {
    architecture: String,
    /// By name, the latest version first.
    candidates: Vec<Candidate>,
    /// Virtual names and the places of the candidates that provide them, in order.
    providers: Vec<(Box<str>, u32)>,
}

impl Relations {
    pub(crate) fn of(paragraph: &Paragraph) -> Self {
        let mut text = String::new();
        // A paragraph is far shorter than what 32 bits count.
        let ends = FIELDS.map(|name| {
            text.push_str(paragraph.get(name).unwrap_or_default());
            u32::try_from(text.len()).unwrap_or(u32::MAX)
        });
        let text = text.into();
        Self { text, ends }
    }

    fn field(&self, name: &str) -> &str {
        let Some(at) = FIELDS.iter().position(|field| *field == name) else {
            return "";
        };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[at] as usize]
    }

    /// Pre-dependencies, then dependencies; or the text that is not one.
    pub(crate) fn depends(&self) -> Result<Vec<Alternatives>, String> {
        let mut all = depends::parse(self.field("Pre-Depends"))?;
        all.extend(depends::parse(self.field("Depends"))?);
        Ok(all)
    }

    /// What it cannot be installed beside.
    pub(crate) fn excludes(&self) -> Result<Vec<Relation>, String> {
        let mut all = depends::parse(self.field("Conflicts"))?;
        all.extend(depends::parse(self.field("Breaks"))?);
        Ok(all.into_iter().flatten().collect())
    }

    /// Virtual packages it stands for, each with the version it provides.
    pub(crate) fn provides(&self) -> Vec<(String, Option<String>)> {
        let Ok(groups) = depends::parse(self.field("Provides")) else {
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

/// How much an archive wants a package installed, most first.
const PRIORITIES: [&str; 5] = ["required", "important", "standard", "optional", "extra"];

impl Candidate {
    pub(crate) fn relations(&self) -> &Relations {
        &self.relations
    }

    pub(crate) fn name(&self) -> &str {
        &self.text[..self.name_end.into()]
    }

    pub(crate) fn version(&self) -> &str {
        &self.text[self.name_end.into()..self.version_end.into()]
    }

    pub(crate) const fn is_essential(&self) -> bool {
        self.essential
    }

    /// How much the archive wants it installed, least first.
    pub(crate) const fn rank(&self) -> u8 {
        self.rank
    }

    /// The whole package; `architecture` is that of its index.
    pub(crate) fn package(&self, architecture: &str) -> Package {
        Package {
            name: self.name().to_owned(),
            version: self.version().to_owned(),
            architecture: if self.all { "all" } else { architecture }.to_owned(),
            pocket: self.pocket,
            filename: self.text[self.version_end.into()..].to_owned(),
            size: self.size,
            sha256: self.sha256,
            essential: self.essential,
            priority: PRIORITIES[usize::from(self.rank)].to_owned(),
        }
    }

    fn of(paragraph: &Paragraph, pocket: Pocket) -> Option<Self> {
        let filename = paragraph.get("Filename")?;
        let safe = filename
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
        let filename = safe.then_some(filename)?;
        let name = paragraph
            .get("Package")
            .filter(|name| depends::is_name(name))?;
        let version = paragraph
            .get("Version")
            .filter(|version| is_version(version))?;
        let own = paragraph.get("Architecture")?;
        let sha256 = format!("sha256:{}", paragraph.get("SHA256")?);
        let priority = paragraph.get("Priority").unwrap_or("optional");
        let rank = PRIORITIES.iter().position(|known| *known == priority);
        let name_end = u16::try_from(name.len()).ok()?;
        Some(Self {
            text: format!("{name}{version}{filename}").into(),
            name_end,
            version_end: u16::try_from(version.len()).ok()?.checked_add(name_end)?,
            size: paragraph.get("Size")?.parse().ok()?,
            sha256: sha256.parse().ok()?,
            pocket,
            all: own == "all",
            essential: paragraph.get("Essential") == Some("yes"),
            rank: rank.and_then(|rank| u8::try_from(rank).ok()).unwrap_or(4),
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
            if candidate.all || paragraph.get("Architecture") == Some(&self.architecture) {
                self.candidates.push(candidate);
            }
            Ok(())
        })?;
        // Stable: of equal versions the one added first stays first.
        self.candidates.sort_by(|left, right| {
            let newest_first = || version::compare(right.version(), left.version());
            left.name().cmp(right.name()).then_with(newest_first)
        });
        self.find_providers();
        Ok(())
    }

    fn find_providers(&mut self) {
        self.providers.clear();
        for (at, candidate) in (0_u32..).zip(&self.candidates) {
            let provided = candidate.relations.provides().into_iter();
            let provided = provided.map(|(name, _)| (Box::from(name), at));
            self.providers.extend(provided);
        }
        self.providers.sort();
        self.providers.shrink_to_fit();
    }

    /// The architecture, as Debian names it.
    pub(crate) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The versions of a real package, the latest first.
    fn versions(&self, name: &str) -> &[Candidate] {
        let start = self.candidates.partition_point(|one| one.name() < name);
        let rest = &self.candidates[start..];
        &rest[..rest.partition_point(|one| one.name() == name)]
    }

    /// The latest version of a real package.
    pub(crate) fn latest_of(&self, name: &str) -> Option<&Candidate> {
        self.versions(name).first()
    }

    /// The latest version of a real package that a relation allows.
    pub(crate) fn candidate(&self, relation: &Relation) -> Option<&Candidate> {
        if !relation.is_for(&self.architecture) {
            return None;
        }
        self.versions(&relation.name)
            .iter()
            .find(|candidate| relation.allows(candidate.version()))
    }

    /// The packages that provide what a relation names, the most wanted first, then by name.
    pub(crate) fn providers(&self, relation: &Relation) -> Vec<&Candidate> {
        let name = relation.name.as_str();
        let start = self.providers.partition_point(|(other, _)| **other < *name);
        let provided = self.providers[start..].iter();
        let mut found: Vec<&Candidate> = provided
            .take_while(|(other, _)| **other == *name)
            .filter_map(|(_, at)| self.latest_of(self.candidates[*at as usize].name()))
            .filter(|candidate| candidate.relations.provide(relation))
            .collect();
        found.sort_by_key(|candidate| (candidate.rank(), candidate.name()));
        found.dedup_by_key(|candidate| candidate.name());
        found
    }

    /// The latest version of every package.
    pub(crate) fn latest(&self) -> impl Iterator<Item = &Candidate> {
        let packages = self
            .candidates
            .chunk_by(|one, next| one.name() == next.name());
        packages.filter_map(|versions| versions.first())
    }

    /// Names that look like `name`, the likeliest first.
    pub(crate) fn similar(&self, name: &str) -> Vec<String> {
        let name = &name.to_lowercase();
        let mut scored: Vec<(f64, &str)> = self
            .latest()
            .map(|other| (strsim::jaro_winkler(name, other.name()), other.name()))
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

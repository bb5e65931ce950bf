//! Which packages an installation needs: a greedy, deterministic choice, as for a fresh system.
//!
//! What is wanted is chosen first; then every dependency that nothing chosen satisfies takes its first
//! alternative that exists, a virtual one the provider that the archive prefers. There is no backtracking:
//! within one stable suite a dependency's candidate is unique. Conflicts are checked at the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::deb822::Paragraph;
use crate::depends::Relation;
use crate::error::DebianError;
use crate::index::{Candidate, Index, Relations};
use crate::package::Package;

/// A package that is on the system already.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    relations: Relations,
}

impl Installed {
    /// The installed packages of a dpkg database's `status` file.
    pub fn read(status: &str) -> std::io::Result<Vec<Self>> {
        let paragraphs = crate::deb822::parse(status)?;
        Ok(paragraphs.iter().filter_map(Self::of).collect())
    }

    fn of(paragraph: &Paragraph) -> Option<Self> {
        let state = paragraph.get("Status")?.split_whitespace().nth(2)?;
        (state == "installed").then_some(Self {
            name: paragraph.get("Package")?.to_owned(),
            version: paragraph.get("Version")?.to_owned(),
            relations: Relations::of(paragraph),
        })
    }
}

struct Closure<'a> {
    index: &'a Index,
    installed: BTreeMap<&'a str, &'a Installed>,
    chosen: BTreeMap<&'a str, &'a Candidate>,
    queue: VecDeque<&'a Candidate>,
}

/// The packages that have to be added to `installed` so that all of `names` are there, dependencies before
/// what needs them where that is possible. A name may be `name`, `name=version` or `name:architecture`.
pub(crate) fn closure(
    index: &Index,
    suite: &str,
    names: &[String],
    installed: &[Installed],
) -> Result<Vec<Package>, DebianError> {
    let mut closure = Closure {
        index,
        installed: installed
            .iter()
            .map(|one| (one.name.as_str(), one))
            .collect(),
        chosen: BTreeMap::new(),
        queue: VecDeque::new(),
    };
    for name in names {
        closure.want(name, suite)?;
    }
    while let Some(candidate) = closure.queue.pop_front() {
        closure.satisfy(candidate)?;
    }
    closure.check_exclusions()?;
    closure.ordered()
}

impl<'a> Closure<'a> {
    fn want(&mut self, written: &str, suite: &str) -> Result<(), DebianError> {
        let unknown = |name: &str| DebianError::UnknownPackage {
            name: written.to_owned(),
            suite: suite.to_owned(),
            similar: self.index.similar(name),
        };
        let text = match written.trim().split_once('=') {
            Some((name, version)) => format!("{name} (= {version})"),
            None => written.trim().to_owned(),
        };
        let relation = Relation::parse(&text).ok_or_else(|| unknown(written))?;
        if self.is_satisfied(&relation) {
            return Ok(());
        }
        let candidate = self
            .choose(&relation)
            .ok_or_else(|| unknown(&relation.name))?;
        self.take(candidate);
        Ok(())
    }

    fn choose(&self, relation: &Relation) -> Option<&'a Candidate> {
        let index = self.index;
        index
            .candidate(relation)
            .or_else(|| index.providers(relation).into_iter().next())
            .filter(|candidate| !self.chosen.contains_key(candidate.name()))
    }

    fn take(&mut self, candidate: &'a Candidate) {
        if self.chosen.insert(candidate.name(), candidate).is_none() {
            self.queue.push_back(candidate);
        }
    }

    fn satisfy(&mut self, candidate: &'a Candidate) -> Result<(), DebianError> {
        let unsatisfied = |relation: String| DebianError::Unsatisfied {
            package: candidate.name().to_owned(),
            relation,
        };
        for group in candidate.relations().depends().map_err(unsatisfied)? {
            if group.iter().any(|relation| self.is_satisfied(relation)) {
                continue;
            }
            let found = group.iter().find_map(|relation| self.choose(relation));
            let Some(found) = found else {
                let shown: Vec<String> = group.iter().map(ToString::to_string).collect();
                return Err(unsatisfied(shown.join(" | ")));
            };
            self.take(found);
        }
        Ok(())
    }

    /// Every package that will be there: name, version, relations. A chosen one replaces an installed one.
    fn present(&self) -> impl Iterator<Item = (&str, &str, &Relations)> {
        let chosen = self
            .chosen
            .values()
            .map(|candidate| (candidate.name(), candidate.version(), candidate.relations()));
        let kept = self
            .installed
            .values()
            .filter(|one| !self.chosen.contains_key(one.name.as_str()))
            .map(|one| (&*one.name, &*one.version, &one.relations));
        chosen.chain(kept)
    }

    fn version_of(&self, name: &str) -> Option<&str> {
        match self.chosen.get(name) {
            Some(candidate) => Some(candidate.version()),
            None => self.installed.get(name).map(|one| one.version.as_str()),
        }
    }

    fn is_satisfied(&self, relation: &Relation) -> bool {
        self.version_of(&relation.name)
            .is_some_and(|version| relation.allows(version))
            || self
                .present()
                .any(|(_, _, relations)| relations.provide(relation))
    }

    fn check_exclusions(&self) -> Result<(), DebianError> {
        for (name, _, relations) in self.present() {
            let unsatisfied = |relation| DebianError::Unsatisfied {
                package: name.to_owned(),
                relation,
            };
            for relation in relations.excludes().map_err(unsatisfied)? {
                let other = self.present().find(|(other, version, others)| {
                    *other != name
                        && ((*other == relation.name && relation.allows(version))
                            || others.provide(&relation))
                });
                if let Some((other, ..)) = other {
                    return Err(DebianError::Conflict {
                        package: name.to_owned(),
                        other: other.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Depth first, so that dependencies come first; a cycle is cut where it is met.
    fn ordered(&self) -> Result<Vec<Package>, DebianError> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in self.chosen.keys() {
            self.visit(name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &'a str,
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<Package>,
    ) -> Result<(), DebianError> {
        let Some(candidate) = self.chosen.get(name).filter(|_| seen.insert(name)) else {
            return Ok(());
        };
        let unsatisfied = |relation| DebianError::Unsatisfied {
            package: name.to_owned(),
            relation,
        };
        for relation in candidate
            .relations()
            .depends()
            .map_err(unsatisfied)?
            .iter()
            .flatten()
        {
            let needed = self.chosen.iter().find(|(other, candidate)| {
                ***other == *relation.name || candidate.relations().provide(relation)
            });
            if let Some((needed, _)) = needed {
                self.visit(needed, seen, order)?;
            }
        }
        order.push(candidate.package(self.index.architecture()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::package::Pocket;

    const PACKAGES: &str = "\
app Depends: lib (>= 2), editor | nano, debconf (>= 1) | debconf-2.0
lib2 Provides: lib (= 2)
lib1 Provides: lib (= 1)
nano
vim Provides: editor; Priority: important
emacs Provides: editor
debconf Pre-Depends: core
core
rival Conflicts: vim
ring Depends: gnir
gnir Depends: ring
broken Depends: nothing (>= 3)
core (2) Depends: nano
";

    fn index() -> Index {
        let mut text = String::new();
        for line in PACKAGES.lines() {
            let (head, fields) = match line.find(char::is_uppercase) {
                Some(at) => line.split_at(at),
                None => (line, ""),
            };
            let (name, version) = head.trim().split_once(' ').unwrap_or((head.trim(), "(1)"));
            let version = version.trim_matches(['(', ')']);
            let fields = fields.replace("; ", "\n");
            let file = format!("Filename: x\nSize: 1\nSHA256: {:064}", 0);
            let _ = write!(
                text,
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{file}\n{fields}\n\n"
            );
        }
        let mut index = Index::new("amd64");
        index
            .add(&mut text.as_bytes(), Pocket::Release)
            .expect("an index");
        index
    }

    fn names(wanted: &[&str], installed: &str) -> Result<Vec<String>, DebianError> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let installed = Installed::read(installed).expect("a status");
        let packages = closure(&index(), "suite", &wanted, &installed)?;
        Ok(packages
            .into_iter()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect())
    }

    #[test]
    fn dependencies_come_first_and_virtual_ones_are_provided() {
        assert_eq!(
            names(&["app"], "").expect("a closure"),
            ["lib2=1", "vim=1", "nano=1", "core=2", "debconf=1", "app=1"]
        );
    }

    #[test]
    fn what_is_installed_or_chosen_satisfies() {
        let status = "Package: debconf\nVersion: 1\nStatus: install ok installed\n";
        assert_eq!(
            names(&["app", "emacs"], status).expect("a closure"),
            ["lib2=1", "emacs=1", "app=1"]
        );
        let removed = status.replace("ok installed", "ok config-files");
        assert!(
            names(&["debconf"], &removed)
                .expect("a closure")
                .contains(&"debconf=1".to_owned())
        );
    }

    #[test]
    fn a_version_can_be_chosen_and_a_cycle_ends() {
        assert_eq!(names(&["core=1"], "").expect("a closure"), ["core=1"]);
        assert_eq!(
            names(&["ring"], "").expect("a closure"),
            ["ring=1", "gnir=1"]
        );
    }

    #[test]
    fn what_cannot_be_is_said() {
        let message = |wanted: &[&str]| names(wanted, "").expect_err("an error").to_string();
        assert_eq!(
            message(&["broken"]),
            "`broken` needs what the Debian suite does not have: nothing (>= 3)"
        );
        assert_eq!(
            message(&["rival", "vim"]),
            "`rival` cannot be installed beside `vim`"
        );
        let Err(DebianError::UnknownPackage { similar, .. }) = names(&["debcnf"], "") else {
            panic!("not unknown");
        };
        assert_eq!(similar, ["debconf"]);
    }
}

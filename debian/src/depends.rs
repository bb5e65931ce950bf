//! Relations between packages: Debian Policy Manual, section 7.1.

use std::cmp::Ordering;

use crate::version;

/// How a relation restricts the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`, and the obsolete `<`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`, and the obsolete `>`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// One package that a relation names: `name[:arch] [(op version)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The package, real or virtual.
    pub name: String,
    /// Architecture qualifier: `any`, `native`, or an architecture.
    pub qualifier: Option<String>,
    /// Restriction of the version.
    pub version: Option<(Operator, String)>,
}

/// Alternatives, of which one has to hold.
pub type Alternatives = Vec<Relation>;

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Earlier,
            "<=" | "<" => Self::EarlierOrEqual,
            "=" => Self::Equal,
            ">=" | ">" => Self::LaterOrEqual,
            ">>" => Self::Later,
            _ => return None,
        })
    }

    /// Whether an order of (candidate, wanted) satisfies the operator.
    fn allows(self, order: Ordering) -> bool {
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::EarlierOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::LaterOrEqual => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }
}

impl Relation {
    /// Whether `version` of a package satisfies the restriction.
    pub fn allows(&self, version: &str) -> bool {
        self.version
            .as_ref()
            .is_none_or(|(operator, wanted)| operator.allows(version::compare(version, wanted)))
    }

    /// Whether the qualifier can mean a package of `architecture`.
    pub fn is_for(&self, architecture: &str) -> bool {
        match self.qualifier.as_deref() {
            None | Some("any" | "native" | "all") => true,
            Some(qualifier) => qualifier == architecture,
        }
    }

    /// The relation that `text` writes, or nothing when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, version) = match text.split_once('(') {
            None => (text, None),
            Some((head, rest)) => {
                let (inside, _) = rest.split_once(')')?;
                let inside = inside.trim();
                let end = inside.find(|c: char| !"<=>".contains(c))?;
                let operator = Operator::parse(&inside[..end])?;
                (head, Some((operator, inside[end..].trim().to_owned())))
            }
        };
        let (name, qualifier) = match head.trim().split_once(':') {
            None => (head.trim(), None),
            Some((name, qualifier)) => (name, Some(qualifier.to_owned())),
        };
        is_name(name).then(|| Self {
            name: name.to_owned(),
            qualifier,
            version,
        })
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if let Some(qualifier) = &self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        if let Some((operator, version)) = &self.version {
            let operator = match operator {
                Operator::Earlier => "<<",
                Operator::EarlierOrEqual => "<=",
                Operator::Equal => "=",
                Operator::LaterOrEqual => ">=",
                Operator::Later => ">>",
            };
            write!(f, " ({operator} {version})")?;
        }
        Ok(())
    }
}

/// Whether `name` can name a package (Policy, section 5.6.1).
pub fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte)
        })
}

/// A list of relations separated by commas, each of alternatives separated by bars. What is not a relation
/// is returned as the error.
pub fn parse(field: &str) -> Result<Vec<Alternatives>, String> {
    field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| {
            group
                .split('|')
                .map(|one| Relation::parse(one).ok_or_else(|| one.trim().to_owned()))
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_reads_as_groups_of_alternatives() {
        let groups =
            parse("libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0,\n python3:any (<<3.12)")
                .expect("relations");
        let shown: Vec<Vec<String>> = groups
            .iter()
            .map(|group| group.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(
            shown,
            [
                vec!["libc6 (>= 2.34)"],
                vec!["debconf (>= 0.5)", "debconf-2.0"],
                vec!["python3:any (<< 3.12)"]
            ]
        );
        assert!(groups[0][0].allows("2.36-9") && !groups[0][0].allows("2.31"));
        assert!(groups[2][0].allows("3.11.2-1") && !groups[2][0].allows("3.12"));
    }

    #[test]
    fn what_is_no_relation_is_named() {
        for wrong in ["libc6 (2.34)", "libc6 (>= 2", "../x", "a b", "libc6 (?? 1)"] {
            assert_eq!(parse(wrong), Err(wrong.to_owned()));
        }
    }

    #[test]
    fn a_foreign_architecture_is_not_ours() {
        let relation = Relation::parse("gcc:i386").expect("a relation");
        assert!(!relation.is_for("amd64") && relation.is_for("i386"));
    }
}

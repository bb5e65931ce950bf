//! `RECORD`: what a distribution installed, with digests (recording installed projects, packaging.python.org).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use imagespec_core::digest::Digest;

use super::WheelError;

/// The rows of a `RECORD`: path to digest and size, where it has them.
#[derive(Debug, Clone, Default)]
pub(super) struct Record(BTreeMap<String, Option<(Digest, u64)>>);

impl Record {
    pub(super) fn parse(text: &str) -> Result<Self, WheelError> {
        let wrong =
            |line: &str| WheelError::format(format!("a row of RECORD is malformed: `{line}`"));
        let mut rows = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (path, hash, size) = fields(line).ok_or_else(|| wrong(line))?;
            let digest = match hash.split_once('=') {
                Some(("sha256", encoded)) => {
                    let bytes = URL_SAFE_NO_PAD
                        .decode(encoded)
                        .ok()
                        .and_then(|bytes| bytes.try_into().ok());
                    Some(Digest::from_bytes(bytes.ok_or_else(|| wrong(line))?))
                }
                _ => None,
            };
            let size = size.parse().unwrap_or(0);
            rows.insert(path, digest.map(|digest| (digest, size)));
        }
        Ok(Self(rows))
    }

    /// The digest of a file, where the record has one of a kind we know.
    pub(super) fn digest(&self, path: &str) -> Option<Digest> {
        self.0
            .get(path)
            .copied()
            .flatten()
            .map(|(digest, _)| digest)
    }

    pub(super) fn lists(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(super) fn insert(&mut self, path: String, row: Option<(Digest, u64)>) {
        self.0.insert(path, row);
    }

    /// The rows, sorted by path.
    pub(super) fn text(&self) -> String {
        let row = |(path, row): (&String, &Option<(Digest, u64)>)| {
            let path = if path.contains([',', '"']) {
                format!("\"{}\"", path.replace('"', "\"\""))
            } else {
                path.clone()
            };
            match row {
                Some((digest, size)) => format!(
                    "{path},sha256={},{size}\n",
                    URL_SAFE_NO_PAD.encode(digest.as_bytes())
                ),
                None => format!("{path},,\n"),
            }
        };
        self.0.iter().map(row).collect()
    }
}

/// The three fields of a row, the first of which may be quoted.
fn fields(line: &str) -> Option<(String, &str, &str)> {
    if let Some(rest) = line.strip_prefix('"') {
        let mut path = String::new();
        let mut chars = rest.char_indices();
        while let Some((index, c)) = chars.next() {
            match (c, rest[index + 1..].chars().next()) {
                ('"', Some('"')) => {
                    path.push('"');
                    chars.next();
                }
                ('"', _) => {
                    let (hash, size) = rest[index + 1..].strip_prefix(',')?.split_once(',')?;
                    return Some((path, hash, size));
                }
                _ => path.push(c),
            }
        }
        return None;
    }
    let (rest, size) = line.rsplit_once(',')?;
    let (path, hash) = rest.rsplit_once(',')?;
    Some((path.to_owned(), hash, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_as_they_were_written() {
        let digest = Digest::of("x");
        let mut record = Record::default();
        record.insert("a,\"b\".py".into(), Some((digest, 1)));
        record.insert("pkg/RECORD".into(), None);
        let read = Record::parse(&record.text()).expect("a record");
        assert_eq!(read.digest("a,\"b\".py"), Some(digest));
        assert!(read.lists("pkg/RECORD") && read.digest("pkg/RECORD").is_none());
        assert!(Record::parse("no commas").is_err());
        assert!(Record::parse("a,sha256=short,1").is_err());
    }
}

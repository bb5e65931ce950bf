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
        let mut rows = BTreeMap::new();
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        for row in reader.records() {
            let row = row.map_err(|error| WheelError::format(format!("RECORD: {error}")))?;
            let wrong = || {
                let row: Vec<&str> = row.iter().collect();
                let row = row.join(",");
                WheelError::format(format!("a row of RECORD is malformed: `{row}`"))
            };
            let mut fields = row.iter();
            let (Some(path), Some(hash), Some(size)) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(wrong());
            };
            let digest = match hash.split_once('=') {
                Some(("sha256", encoded)) => {
                    let bytes = URL_SAFE_NO_PAD
                        .decode(encoded)
                        .ok()
                        .and_then(|bytes| bytes.try_into().ok());
                    Some(Digest::from_bytes(bytes.ok_or_else(wrong)?))
                }
                _ => None,
            };
            let size = size.parse().unwrap_or(0);
            rows.insert(path.to_owned(), digest.map(|digest| (digest, size)));
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
        let mut writer = csv::WriterBuilder::new()
            .flexible(true)
            .from_writer(Vec::new());
        for (path, row) in &self.0 {
            let (hash, size) = row.map_or_else(Default::default, |(digest, size)| {
                let hash = URL_SAFE_NO_PAD.encode(digest.as_bytes());
                (format!("sha256={hash}"), size.to_string())
            });
            // Writing to memory does not fail.
            let _ = writer.write_record([path, &hash, &size]);
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }
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
        let odd = Record::parse("\"é,a\nb.py\",,\r\n").expect("a record");
        assert!(odd.lists("é,a\nb.py"));
        assert!(Record::parse("a,sha256=short,1").is_err());
    }
}

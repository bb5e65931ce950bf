//! What a channel has for a platform, read package by package: of a channel with sharded lists (CEP 16) only what is
//! needed is fetched, of others the one list, which is taken apart once on disk.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use imagespec_core::digest::{Digest, Framed};
use imagespec_http::Expected;
use imagespec_oci::store::publish;
use rattler_conda_types::package::DistArchiveIdentifier;
use rattler_conda_types::{PackageRecord, RepoDataRecord, Shard, ShardedRepodata};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use url::Url;

use crate::channel::Channel;
use crate::error::CondaError;
use crate::wire::{Fetched, Session};

/// The largest list of shards, in bytes, compressed and not.
const SHARDS: u64 = 64 << 20;
/// The largest shard, in bytes, compressed and not.
const SHARD: u64 = 64 << 20;
/// The largest list of packages, in bytes, compressed and not.
const LIST: u64 = 4 << 30;
/// The most that a list may say of one package file, in bytes.
const RECORD: usize = 1 << 20;
/// How deep values of shards are nested at most.
const DEPTH: usize = 32;
/// Version of the way lists are taken apart.
const RECIPE: u64 = 2;

/// The packages of a channel for one platform.
#[derive(Debug)]
pub(crate) struct Index {
    channel: String,
    /// Where the files of packages are.
    packages: Url,
    lists: Lists,
}

#[derive(Debug)]
enum Lists {
    Sharded {
        shards: HashMap<String, Digest>,
        url: Url,
    },
    /// A file of records, and where those of each package are in it.
    Whole { file: PathBuf, places: Places },
}

/// Where the records of a package are: offset and length of each, which is a file name, a line break, and JSON. Lists
/// have a million of them, so that nothing else of them is in memory.
type Places = HashMap<String, Vec<(u64, u32)>>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    base_url: Option<String>,
    places: Places,
}

impl Index {
    /// The packages of a channel for `subdir`; `None` where it has none for it.
    pub(crate) async fn open(
        session: &Session<'_>,
        channel: &Channel,
        subdir: &str,
    ) -> Result<Option<Self>, CondaError> {
        let url = join(&channel.url, &format!("{subdir}/"))?;
        if let Some(index) = Self::sharded(session, channel, &url).await? {
            return Ok(Some(index));
        }
        Self::whole(session, channel, &url).await
    }

    async fn sharded(
        session: &Session<'_>,
        channel: &Channel,
        url: &Url,
    ) -> Result<Option<Self>, CondaError> {
        let list = join(url, "repodata_shards.msgpack.zst")?;
        let Some(bytes) = session.small(&list, SHARDS).await? else {
            return Ok(None);
        };
        let refused = |error| refused(&list, error);
        let read = || parse_shards(&unpacked(&bytes, SHARDS)?);
        let list = read().map_err(refused)?;
        let shards = list.shards.into_iter();
        let shards = shards.map(|(name, hash)| (name, Digest::from_bytes(hash.into())));
        Ok(Some(Self {
            channel: channel.url.to_string(),
            packages: joined(url, &list.info.base_url)?,
            lists: Lists::Sharded {
                shards: shards.collect(),
                url: joined(url, &list.info.shards_base_url)?,
            },
        }))
    }

    async fn whole(
        session: &Session<'_>,
        channel: &Channel,
        url: &Url,
    ) -> Result<Option<Self>, CondaError> {
        let mut key = Framed::new("imagespec conda list");
        key.number(RECIPE).text(url.as_str());
        let folder = session.cache().join("lists");
        let records = folder.join(key.finish().hex());
        for name in ["repodata.json.zst", "repodata.json"] {
            fs_err::create_dir_all(&folder)?;
            let work = tempfile::Builder::new()
                .prefix(".list-")
                .tempdir_in(&folder)?;
            let file = work.path().join(name);
            let since = fs_err::metadata(&records).and_then(|found| found.modified());
            let asked = SystemTime::now();
            let list = join(url, name)?;
            match session.large(&list, &file, since.ok(), LIST).await? {
                Fetched::Absent => continue,
                Fetched::Unchanged => {}
                Fetched::New => {
                    let to = records.clone();
                    let apart = tokio::task::spawn_blocking(move || take_apart(&file, &to, asked));
                    let apart = apart.await.map_err(std::io::Error::from)?;
                    apart.map_err(|error| refused(&list, error))?;
                }
            }
            let kept = read_kept(&records)?;
            let packages = match &kept.base_url {
                Some(base) => joined(url, base)?,
                None => url.clone(),
            };
            return Ok(Some(Self {
                channel: channel.url.to_string(),
                packages,
                lists: Lists::Whole {
                    file: records,
                    places: kept.places,
                },
            }));
        }
        Ok(None)
    }

    /// Whether it has a package of the name.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.lists {
            Lists::Sharded { shards, .. } => shards.contains_key(name),
            Lists::Whole { places, .. } => places.contains_key(name),
        }
    }

    /// The names of all packages.
    pub(crate) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match &self.lists {
            Lists::Sharded { shards, .. } => Box::new(shards.keys().map(String::as_str)),
            Lists::Whole { places, .. } => Box::new(places.keys().map(String::as_str)),
        }
    }

    /// What it has of a package.
    pub(crate) async fn records(
        &self,
        session: &Session<'_>,
        name: &str,
    ) -> Result<Vec<RepoDataRecord>, CondaError> {
        let mut found: HashMap<String, (DistArchiveIdentifier, PackageRecord)> = HashMap::new();
        let mut add = |file: DistArchiveIdentifier, record: PackageRecord| {
            let name = file.to_file_name();
            let stem = name.strip_suffix(".conda");
            let is_new = stem.is_some();
            let stem = stem.unwrap_or(name.trim_end_matches(".tar.bz2"));
            // The newer format of the same package counts.
            if is_new || !found.contains_key(stem) {
                found.insert(stem.to_owned(), (file, record));
            }
        };
        match &self.lists {
            Lists::Sharded { shards, url } => {
                let Some(digest) = shards.get(name) else {
                    return Ok(Vec::new());
                };
                let shard = self.shard(session, url, digest).await?;
                let files = shard.packages.into_iter().chain(shard.conda_packages);
                for (file, record) in files {
                    add(file, record);
                }
            }
            Lists::Whole { file, places } => {
                let places = places.get(name).cloned().unwrap_or_default();
                if places.is_empty() {
                    return Ok(Vec::new());
                }
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || read_records(&file, &places));
                for (file, record) in read.await.map_err(std::io::Error::from)?? {
                    add(file, record);
                }
            }
        }
        let mut records = Vec::new();
        for (identifier, record) in found.into_values() {
            let file = identifier.to_file_name();
            // What a list files under another name would be somebody else's package, and what has no usable name
            // cannot be fetched.
            if record.name.as_normalized() != name || !is_file_name(&file) {
                continue;
            }
            let mut url = self.packages.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().push(&file);
            }
            records.push(RepoDataRecord {
                url,
                channel: Some(self.channel.clone()),
                identifier,
                package_record: record,
            });
        }
        Ok(records)
    }

    async fn shard(
        &self,
        session: &Session<'_>,
        url: &Url,
        digest: &Digest,
    ) -> Result<Shard, CondaError> {
        let name = format!("{}.msgpack.zst", digest.hex());
        let file = session.cache().join("shards").join(&name);
        let url = join(url, &name)?;
        if !file.is_file() {
            let expected = Expected {
                digest: Some(*digest),
                limit: SHARD,
                ..Expected::default()
            };
            session.known(&url, &file, expected, &|_| ()).await?;
        }
        let read = || parse_shard(&unpacked(&fs_err::read(&file)?, SHARD)?);
        read().map_err(|error| {
            // Whatever it is, it is no use to anybody.
            let _ = fs_err::remove_file(&file);
            refused(&url, error)
        })
    }
}

/// Why a list is not one.
type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Reads a list of shards, unpacked (CEP 16).
pub fn parse_shards(bytes: &[u8]) -> Result<ShardedRepodata, Problem> {
    msgpack(bytes)
}

/// Reads a shard, unpacked.
pub fn parse_shard(bytes: &[u8]) -> Result<Shard, Problem> {
    msgpack(bytes)
}

fn msgpack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH);
    Ok(T::deserialize(&mut deserializer)?)
}

/// Takes the list in a file apart, as it is done once, into another, and reads all its records back.
pub fn parse_list(list: &Path, records: &Path) -> Result<usize, Problem> {
    take_apart(list, records, SystemTime::UNIX_EPOCH)?;
    let kept = read_kept(records)?;
    let mut count = 0;
    for places in kept.places.values() {
        count += read_records(records, places)?.len();
    }
    Ok(count)
}

/// Whether a file of that name can be fetched and kept.
fn is_file_name(name: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-+!~".contains(c);
    name.len() < 256 && !name.starts_with('.') && name.chars().all(usual)
}

fn refused(url: &Url, source: Problem) -> CondaError {
    CondaError::Index {
        url: url.to_string(),
        source,
    }
}

fn join(url: &Url, path: &str) -> Result<Url, CondaError> {
    url.join(path).map_err(|error| refused(url, error.into()))
}

/// A folder as a list names it: absolute, or relative to the list.
fn joined(url: &Url, folder: &str) -> Result<Url, CondaError> {
    let folder = if folder.is_empty() || folder.ends_with('/') {
        folder.to_owned()
    } else {
        format!("{folder}/")
    };
    let joined = join(url, &folder)?;
    // A list over the network cannot name files of this machine.
    if joined.scheme() != url.scheme() && !matches!(joined.scheme(), "http" | "https") {
        return Err(refused(url, "it names a folder of another kind".into()));
    }
    Ok(joined)
}

/// What a zstd stream unpacks to, at most `limit` bytes.
fn unpacked(bytes: &[u8], limit: u64) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let stream = zstd::Decoder::new(bytes)?;
    stream.take(limit + 1).read_to_end(&mut out)?;
    if out.len() as u64 > limit {
        return Err(std::io::Error::other(format!(
            "it unpacks to more than {limit} bytes"
        )));
    }
    Ok(out)
}

fn read_records(
    file: &Path,
    places: &[(u64, u32)],
) -> Result<Vec<(DistArchiveIdentifier, PackageRecord)>, CondaError> {
    let mut file = fs_err::File::open(file)?;
    let mut found = Vec::with_capacity(places.len());
    for (at, length) in places {
        let mut text = vec![0; *length as usize];
        file.seek(SeekFrom::Start(*at))?;
        file.read_exact(&mut text)?;
        // A record that nobody understands is of a package that nobody can install: others remain.
        let break_at = text.iter().position(|byte| *byte == b'\n');
        let Some((name, record)) = break_at.map(|at| text.split_at(at)) else {
            continue;
        };
        let record = serde_json::from_slice(record).ok();
        let name = std::str::from_utf8(name).ok();
        let name = name.and_then(DistArchiveIdentifier::try_from_filename);
        found.extend(name.zip(record));
    }
    Ok(found)
}

/// Where records are, as the end of their file says.
fn read_kept(records: &Path) -> Result<Kept, CondaError> {
    let mut file = fs_err::File::open(records)?;
    let mut length = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let back = i64::try_from(length).map_err(std::io::Error::other)? + 8;
    file.seek(SeekFrom::End(-back))?;
    let kept = serde_json::from_reader(BufReader::new(file.take(length)));
    kept.map_err(|error| CondaError::Io(error.into()))
}

/// Writes the records of a list into a file, and at its end where they are. The file is as old as the list.
fn take_apart(list: &Path, records: &Path, asked: SystemTime) -> Result<(), Problem> {
    let source = BufReader::new(fs_err::File::open(list)?);
    let is_packed = list.extension().is_some_and(|extension| extension == "zst");
    let source: Box<dyn Read> = if is_packed {
        Box::new(zstd::Decoder::with_buffer(source)?)
    } else {
        Box::new(source)
    };
    let file = tempfile::Builder::new()
        .prefix(".list-")
        .tempfile_in(records.parent().unwrap_or(Path::new(".")))?;
    let mut sink = Sink {
        out: BufWriter::new(file),
        at: 0,
        kept: Kept::default(),
    };
    let source = BufReader::with_capacity(1 << 20, source.take(LIST));
    let mut deserializer = serde_json::Deserializer::from_reader(source);
    Document(&mut sink).deserialize(&mut deserializer)?;
    let kept = serde_json::to_vec(&sink.kept)?;
    sink.out.write_all(&kept)?;
    sink.out.write_all(&(kept.len() as u64).to_le_bytes())?;
    let file = sink
        .out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    file.as_file().set_modified(asked)?;
    publish(file, records)?;
    Ok(())
}

struct Sink {
    out: BufWriter<tempfile::NamedTempFile>,
    at: u64,
    kept: Kept,
}

impl Sink {
    fn add(&mut self, file: &str, record: &str) -> std::io::Result<()> {
        // `name-version-build.ending`, and dashes in the name.
        let Some(name) = file.rsplitn(3, '-').nth(2) else {
            return Ok(());
        };
        if record.len() > RECORD || !is_file_name(file) {
            return Ok(());
        }
        write!(self.out, "{file}\n{record}")?;
        let length = file.len() + 1 + record.len();
        let length = u32::try_from(length).map_err(std::io::Error::other)?;
        let name = name.to_ascii_lowercase();
        let places = self.kept.places.entry(name).or_default();
        places.push((self.at, length));
        self.at += u64::from(length);
        Ok(())
    }
}

/// A list of packages as a whole.
struct Document<'a>(&'a mut Sink);

#[derive(Deserialize)]
struct Info {
    base_url: Option<String>,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Conda packages")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "info" => self.0.kept.base_url = map.next_value::<Info>()?.base_url,
                "packages" | "packages.conda" => map.next_value_seed(Records(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The records of a list, by file name.
struct Records<'a>(&'a mut Sink);

impl<'de> DeserializeSeed<'de> for Records<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Records<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records by file name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((file, record)) = map.next_entry::<String, Box<RawValue>>()? {
            let added = self.0.add(&file, record.get());
            added.map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

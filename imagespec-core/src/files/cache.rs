//! Digests of files that have not changed since they were last read, kept between runs.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::digest::Digest;

/// What the file of a cache starts with: its format's name and version.
const MAGIC: &[u8] = b"imagespec files 1\n";
/// A file changed within this time before it was read may change again without its times showing it.
const SETTLED: Duration = Duration::from_secs(2);
/// The most files a cache remembers.
const MOST: usize = 500_000;
/// The largest cache that is read, in bytes.
const LARGEST: u64 = 512 << 20;
/// Bytes of a record without its path.
const FIXED: usize = 4 + Stamp::LENGTH + 32;

/// What the file system says of a regular file, which changes whenever its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    /// Seconds and nanoseconds since the epoch at which content, mode or owner changed last.
    changed: (i64, i64),
    inode: u64,
    device: u64,
}

impl Stamp {
    const LENGTH: usize = 7 * 8;

    #[cfg(unix)]
    #[expect(clippy::unnecessary_wraps, reason = "other systems have no stamps")]
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        Some(Self {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        })
    }

    #[cfg(not(unix))]
    pub(super) fn of(_: &Metadata) -> Option<Self> {
        None
    }

    /// Whether a change after `now` would show.
    fn settled(&self, now: SystemTime) -> bool {
        let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else {
            return false;
        };
        let settled = |(seconds, nanoseconds): (i64, i64)| {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            let nanoseconds = u32::try_from(nanoseconds).unwrap_or(0);
            Duration::new(seconds, nanoseconds) + SETTLED <= now
        };
        settled(self.modified) && settled(self.changed)
    }

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let numbers = [
            self.size.to_le_bytes(),
            self.modified.0.to_le_bytes(),
            self.modified.1.to_le_bytes(),
            self.changed.0.to_le_bytes(),
            self.changed.1.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.device.to_le_bytes(),
        ];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number);
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |index: usize| bytes.get(index * 8..index * 8 + 8)?.try_into().ok();
        Some(Self {
            size: u64::from_le_bytes(number(0)?),
            modified: (
                i64::from_le_bytes(number(1)?),
                i64::from_le_bytes(number(2)?),
            ),
            changed: (
                i64::from_le_bytes(number(3)?),
                i64::from_le_bytes(number(4)?),
            ),
            inode: u64::from_le_bytes(number(5)?),
            device: u64::from_le_bytes(number(6)?),
        })
    }
}

type Records = HashMap<Vec<u8>, (Stamp, Digest)>;

/// Digests of files by their absolute path, each with what the file system said of the file when it was read.
///
/// A file whose size, times, inode or device differ is read again, and so is one that changed less than two
/// seconds before it was read. Several processes may share a cache; the last to save wins.
#[derive(Debug, Default)]
pub struct DigestCache {
    file: Option<PathBuf>,
    known: Records,
    learned: Mutex<Records>,
}

impl DigestCache {
    /// The cache in `file`: empty when that is absent, damaged, or of another version.
    pub fn load(file: &Path) -> Self {
        let fits = fs_err::metadata(file).is_ok_and(|metadata| metadata.len() <= LARGEST);
        let bytes = fits.then(|| fs_err::read(file).ok()).flatten();
        Self {
            file: Some(file.to_path_buf()),
            known: bytes.and_then(|bytes| decode(&bytes)).unwrap_or_default(),
            learned: Mutex::default(),
        }
    }

    /// Writes what was learned since the cache was loaded, whole or not at all. Nothing for a cache without a
    /// file, or one that learned nothing.
    pub fn save(&self) -> io::Result<()> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = self.file.as_deref().filter(|_| !learned.is_empty()) else {
            return Ok(());
        };
        let folder = file.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder)?;
        let older = self
            .known
            .iter()
            .filter(|(path, _)| !learned.contains_key(*path));
        let bytes = encode(learned.iter().chain(older).take(MOST));
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        temporary.write_all(&bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(file).map_err(|error| error.error)?;
        Ok(())
    }

    /// Digest and size of the file at `path`, which is read unless its stamp is known.
    pub(super) fn digest(&self, path: &Path, stamp: Option<&Stamp>) -> io::Result<(Digest, u64)> {
        // A relative path would mean another file in another working directory.
        let key = path
            .is_absolute()
            .then_some(path.as_os_str().as_encoded_bytes());
        if let (Some(key), Some(stamp)) = (key, stamp)
            && let Some((known, digest)) = self.known.get(key)
            && known == stamp
        {
            return Ok((*digest, stamp.size));
        }
        let now = SystemTime::now();
        let mut file = fs_err::File::open(path)?;
        let before = Stamp::of(&file.metadata()?);
        let (digest, size) = Digest::of_reader(&mut file)?;
        let after = Stamp::of(&file.metadata()?);
        if let (Some(_), Some(key), Some(stamp)) = (&self.file, key, before)
            && before == after
            && stamp.size == size
            && stamp.settled(now)
        {
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            learned.insert(key.to_vec(), (stamp, digest));
        }
        Ok((digest, size))
    }
}

/// The magic, the records, and the SHA-256 of both. A record is the length of its path as four little-endian
/// bytes, the stamp, the digest, and the path.
fn encode<'a>(records: impl Iterator<Item = (&'a Vec<u8>, &'a (Stamp, Digest))>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (path, (stamp, digest)) in records {
        let Ok(length) = u32::try_from(path.len()) else {
            continue;
        };
        bytes.extend(length.to_le_bytes());
        bytes.extend(stamp.to_bytes());
        bytes.extend(digest.as_bytes());
        bytes.extend(path);
    }
    let sum = Digest::of(&bytes);
    bytes.extend(sum.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Records> {
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(content).as_bytes() != sum {
        return None;
    }
    let mut rest = content.strip_prefix(MAGIC)?;
    let mut records = Records::with_capacity(rest.len() / (FIXED + 64));
    while !rest.is_empty() {
        let (fixed, after) = rest.split_at_checked(FIXED)?;
        let (length, fixed) = fixed.split_first_chunk::<4>()?;
        let stamp = Stamp::from_bytes(&fixed[..Stamp::LENGTH])?;
        let digest = Digest::from_bytes(fixed[Stamp::LENGTH..].try_into().ok()?);
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (path, after) = after.split_at_checked(length)?;
        records.insert(path.to_vec(), (stamp, digest));
        rest = after;
    }
    Some(records)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn write(path: &Path, content: &str) {
        fs_err::write(path, content).expect("a file");
    }

    fn stamp(path: &Path) -> Stamp {
        Stamp::of(&fs_err::metadata(path).expect("metadata")).expect("a stamp")
    }

    #[test]
    fn what_was_saved_is_known_until_the_file_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, store) = (
            folder.path().join("a"),
            folder.path().join("cache/files-v1"),
        );
        write(&file, "one");
        // A digest that the content does not have shows that the file is not read.
        let planted = Digest::of("planted");
        let cache = DigestCache::load(&store);
        let key = file.as_os_str().as_encoded_bytes().to_vec();
        cache
            .learned
            .lock()
            .expect("no panic")
            .insert(key, (stamp(&file), planted));
        cache.save().expect("saved");
        let cache = DigestCache::load(&store);
        let found = |cache: &DigestCache| cache.digest(&file, Some(&stamp(&file))).expect("read");
        assert_eq!(found(&cache), (planted, 3));
        write(&file, "two");
        assert_eq!(found(&cache), (Digest::of("two"), 3));
    }

    #[test]
    fn a_file_that_just_changed_is_not_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, store) = (folder.path().join("a"), folder.path().join("files-v1"));
        write(&file, "one");
        let cache = DigestCache::load(&store);
        cache.digest(&file, Some(&stamp(&file))).expect("read");
        cache.save().expect("nothing to save");
        assert!(!store.exists());
        let fresh = stamp(&file);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let second = u64::try_from(fresh.changed.0).expect("after the epoch");
        assert!(!fresh.settled(at(second + 1)));
        assert!(fresh.settled(at(second + 4)));
    }

    #[test]
    fn a_damaged_cache_is_empty() {
        let records = [(
            b"/a".to_vec(),
            (
                Stamp::from_bytes(&[7; 56]).expect("56 bytes"),
                Digest::of("a"),
            ),
        )];
        let bytes = encode(records.iter().map(|(path, record)| (path, record)));
        assert_eq!(decode(&bytes), Some(records.into()));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "cut at {cut}");
            let mut flipped = bytes.clone();
            flipped[cut] ^= 1;
            assert_eq!(decode(&flipped), None, "flipped at {cut}");
        }
    }
}

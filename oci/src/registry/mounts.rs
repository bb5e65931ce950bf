//! Which repository of a registry holds which blob, as far as pushes and pulls have seen: what the next image
//! shares with an earlier one is then mounted instead of sent. And which image was pushed to a repository last: where
//! the registry still has it, it has all that the image holds.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use imagespec_core::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::store::write_atomically;

/// How many blobs of a registry are remembered; those seen last stay.
const BLOBS: usize = 8192;
/// How many repositories are remembered for a blob; the one seen last is asked.
const REPOSITORIES: usize = 3;
/// Of how many repositories the last image is remembered.
const IMAGES: usize = 1024;
/// The largest file that is read, in bytes: several times what the bounds allow with usual names.
const FILE_LIMIT: u64 = 16 << 20;

/// A note of where blobs are, one small file a registry, shared by all processes that use the folder.
///
/// It may be wrong: blobs are removed, and rights are. A registry that does not mount a blob from where the
/// note says is asked to take it by an upload, and the note forgets. A damaged file counts as empty.
#[derive(Debug, Default)]
pub struct Mounts {
    folder: Option<PathBuf>,
    notes: Mutex<BTreeMap<String, Note>>,
}

/// What is known of one registry.
#[derive(Debug, Default)]
struct Note {
    blobs: Blobs,
    /// The last image of each repository; the one that was pushed last is last.
    images: Vec<(String, Digest)>,
    /// What was learned since the file was read, in order.
    learned: Vec<Fact>,
    /// Images that were pushed since.
    pushed: Vec<(String, Digest)>,
}

#[derive(Debug, Clone)]
struct Fact {
    blob: Digest,
    repository: String,
    holds: bool,
}

/// Blobs with the repositories that hold them, the one seen last first.
#[derive(Debug, Default)]
struct Blobs {
    entries: BTreeMap<Digest, (u64, Vec<String>)>,
    /// Grows with each blob, so that the oldest are known.
    clock: u64,
}

#[derive(Serialize, Deserialize)]
struct File {
    registry: String,
    /// The blob seen last is last.
    blobs: Vec<(Digest, Vec<String>)>,
    #[serde(default)]
    images: Vec<(String, Digest)>,
}

impl Mounts {
    /// The note in a folder, which is made when there is something to remember. [`Mounts::default`] remembers
    /// for this process alone.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(folder.into()),
            notes: Mutex::default(),
        }
    }

    /// A repository of the registry, other than `repository`, that holds the blob.
    pub fn find(&self, registry: &str, repository: &str, blob: &Digest) -> Option<String> {
        let mut notes = self.lock();
        let (_, holders) = self.note(&mut notes, registry).blobs.entries.get(blob)?;
        holders.iter().find(|holder| *holder != repository).cloned()
    }

    /// Remembers that a repository holds a blob.
    pub fn holds(&self, registry: &str, repository: &str, blob: &Digest) {
        self.learn(registry, repository, blob, true);
    }

    /// Forgets that a repository holds a blob.
    pub fn lacks(&self, registry: &str, repository: &str, blob: &Digest) {
        self.learn(registry, repository, blob, false);
    }

    /// The manifest or index that was pushed to a repository last.
    pub fn last_image(&self, registry: &str, repository: &str) -> Option<Digest> {
        let mut notes = self.lock();
        let images = &self.note(&mut notes, registry).images;
        let last = images.iter().find(|(name, _)| name == repository)?;
        Some(last.1)
    }

    /// Remembers that a manifest or index was pushed to a repository.
    pub fn pushed(&self, registry: &str, repository: &str, image: &Digest) {
        let mut notes = self.lock();
        let note = self.note(&mut notes, registry);
        let pushed = (repository.to_owned(), *image);
        if !note.images.contains(&pushed) {
            remember(&mut note.images, pushed.clone());
            note.pushed.push(pushed);
        }
    }

    /// Keeps what was learned of a registry for later processes, together with what others have learned.
    pub fn save(&self, registry: &str) -> io::Result<()> {
        let mut notes = self.lock();
        let (Some(folder), Some(note)) = (&self.folder, notes.get_mut(registry)) else {
            return Ok(());
        };
        if note.learned.is_empty() && note.pushed.is_empty() {
            return Ok(());
        }
        fs_err::create_dir_all(folder)?;
        let lock = fs_err::File::create(folder.join(".lock"))?.into_parts().0;
        fs4::FileExt::lock(&lock)?;
        let path = file_of(folder, registry);
        let Note {
            mut blobs,
            mut images,
            ..
        } = Note::read(&path, registry);
        for fact in note.learned.drain(..) {
            blobs.learn(&fact);
        }
        for image in note.pushed.drain(..) {
            remember(&mut images, image);
        }
        blobs.trim();
        let file = File {
            registry: registry.to_owned(),
            blobs: blobs.in_order(),
            images: images.clone(),
        };
        write_atomically(&path, &serde_json::to_vec(&file)?)?;
        note.blobs = blobs;
        note.images = images;
        Ok(())
    }

    fn learn(&self, registry: &str, repository: &str, blob: &Digest, holds: bool) {
        let mut notes = self.lock();
        let note = self.note(&mut notes, registry);
        let fact = Fact {
            blob: *blob,
            repository: repository.to_owned(),
            holds,
        };
        // What is known already is not worth a file.
        if note.blobs.learn(&fact) {
            note.learned.push(fact);
        }
    }

    fn note<'a>(&self, notes: &'a mut BTreeMap<String, Note>, registry: &str) -> &'a mut Note {
        notes
            .entry(registry.to_owned())
            .or_insert_with(|| match &self.folder {
                Some(folder) => Note::read(&file_of(folder, registry), registry),
                None => Note::default(),
            })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Note {
    /// What a file holds; nothing where there is none, or it is damaged or another registry's.
    fn read(path: &Path, registry: &str) -> Self {
        let mut bytes = Vec::new();
        let read = fs_err::File::open(path)
            .and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes))
            .ok()
            .and_then(|_| serde_json::from_slice::<File>(&bytes).ok())
            .filter(|file| file.registry == registry);
        let mut note = Self::default();
        let Some(file) = read else { return note };
        let blobs = &mut note.blobs;
        for (blob, holders) in file.blobs {
            blobs.clock += 1;
            blobs.entries.insert(blob, (blobs.clock, holders));
        }
        blobs.trim();
        for image in file.images {
            remember(&mut note.images, image);
        }
        note
    }
}

/// Puts the image of a repository in the place of an earlier one.
fn remember(images: &mut Vec<(String, Digest)>, image: (String, Digest)) {
    images.retain(|(repository, _)| *repository != image.0);
    images.push(image);
    if images.len() > IMAGES {
        images.remove(0);
    }
}

impl Blobs {
    /// Whether the fact is news.
    fn learn(&mut self, fact: &Fact) -> bool {
        self.clock += 1;
        if !fact.holds {
            let Some((_, holders)) = self.entries.get_mut(&fact.blob) else {
                return false;
            };
            let before = holders.len();
            holders.retain(|holder| *holder != fact.repository);
            let news = holders.len() < before;
            if holders.is_empty() {
                self.entries.remove(&fact.blob);
            }
            return news;
        }
        let (seen, holders) = self.entries.entry(fact.blob).or_default();
        *seen = self.clock;
        if holders.first() == Some(&fact.repository) {
            return false;
        }
        let known = holders.contains(&fact.repository);
        holders.retain(|holder| *holder != fact.repository);
        holders.insert(0, fact.repository.clone());
        holders.truncate(REPOSITORIES);
        !known
    }

    fn trim(&mut self) {
        if self.entries.len() <= BLOBS {
            return;
        }
        let mut seen: Vec<_> = self.entries.values().map(|(seen, _)| *seen).collect();
        seen.sort_unstable();
        let oldest = seen[seen.len() - BLOBS];
        self.entries.retain(|_, (seen, _)| *seen >= oldest);
    }

    fn in_order(&self) -> Vec<(Digest, Vec<String>)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(_, (seen, _))| *seen);
        entries
            .into_iter()
            .map(|(blob, (_, holders))| (*blob, holders.clone()))
            .collect()
    }
}

/// The file of a registry, whose name may hold what a file's may not.
fn file_of(folder: &Path, registry: &str) -> PathBuf {
    let mut name = String::new();
    for byte in registry.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') {
            name.push(char::from(byte));
        } else {
            name.push('%');
            name.push_str(&hex::encode([byte]));
        }
    }
    folder.join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(mounts: &Mounts, repository: &str, blob: &str) -> Option<String> {
        mounts.find("r:5000", repository, &Digest::of(blob))
    }

    #[test]
    fn what_one_process_learns_the_next_one_knows() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (Mounts::open(folder.path()), Mounts::open(folder.path()));
        // Both have read the file, which is not there, before the other wrote it.
        assert_eq!(find(&one, "x", "a"), None);
        assert_eq!(find(&two, "x", "a"), None);
        one.holds("r:5000", "first", &Digest::of("a"));
        two.holds("r:5000", "second", &Digest::of("b"));
        one.save("r:5000").expect("a note");
        two.save("r:5000").expect("a note");
        let later = Mounts::open(folder.path());
        assert_eq!(find(&later, "x", "a").as_deref(), Some("first"));
        assert_eq!(find(&later, "x", "b").as_deref(), Some("second"));
        assert_eq!(find(&later, "first", "a"), None);
        assert_eq!(later.find("r", "x", &Digest::of("a")), None);
        later.lacks("r:5000", "first", &Digest::of("a"));
        later.save("r:5000").expect("a note");
        assert_eq!(find(&Mounts::open(folder.path()), "x", "a"), None);
    }

    #[test]
    fn a_damaged_note_is_empty_and_mended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file_of(folder.path(), "r:5000");
        for damage in ["", "{", r#"{"registry":"other","blobs":[]}"#] {
            fs_err::write(&path, damage).expect("damage");
            let mounts = Mounts::open(folder.path());
            assert_eq!(find(&mounts, "x", "a"), None);
            mounts.holds("r:5000", "first", &Digest::of("a"));
            mounts.save("r:5000").expect("a note");
            let later = Mounts::open(folder.path());
            assert_eq!(find(&later, "x", "a").as_deref(), Some("first"));
        }
    }

    #[test]
    fn the_note_is_bounded_and_keeps_what_was_seen_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let mounts = Mounts::open(folder.path());
        let blob = |number: usize| Digest::of(number.to_string());
        for number in 0..BLOBS + 10 {
            mounts.holds("r", "a", &blob(number));
            // Seen again and again.
            mounts.holds("r", "a", &blob(0));
        }
        for repository in ["b", "c", "d", "e"] {
            mounts.holds("r", repository, &blob(0));
        }
        mounts.save("r").expect("a note");
        let later = Mounts::open(folder.path());
        let holder = |number| later.find("r", "x", &blob(number));
        assert_eq!(holder(0).as_deref(), Some("e"));
        assert_eq!(holder(BLOBS + 9).as_deref(), Some("a"));
        assert_eq!(holder(5), None);
        let file = fs_err::read(file_of(folder.path(), "r")).expect("a file");
        let file: File = serde_json::from_slice(&file).expect("a note");
        assert_eq!(file.blobs.len(), BLOBS);
        assert!(
            file.blobs
                .iter()
                .all(|(_, holders)| holders.len() <= REPOSITORIES)
        );
    }

    #[test]
    fn nothing_new_writes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mounts = Mounts::open(folder.path());
        mounts.holds("r", "a", &Digest::of("x"));
        mounts.save("r").expect("a note");
        fs_err::remove_file(file_of(folder.path(), "r")).expect("a file");
        mounts.holds("r", "a", &Digest::of("x"));
        mounts.lacks("r", "b", &Digest::of("x"));
        mounts.save("r").expect("nothing");
        assert!(!file_of(folder.path(), "r").exists());
    }
}

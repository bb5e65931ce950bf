//! An archive of one test: made and signed here, served on the loopback interface.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_debian::{Archive, ArchiveOptions};
use imagespec_http::{Client, Retry};
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, DetachedSignature, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::types::{KeyDetails as _, Password, SigningKey};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A key with a subkey that signs.
pub(crate) struct Key(pub(crate) SignedSecretKey);

impl Key {
    pub(crate) fn new() -> Self {
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .build()
            .expect("a subkey");
        let key = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .can_sign(true)
            .primary_user_id("archive".into())
            .subkey(subkey)
            .build()
            .expect("a key");
        Self(key.generate(rand::thread_rng()).expect("a key"))
    }

    pub(crate) fn public(&self) -> SignedPublicKey {
        SignedPublicKey::from(self.0.clone())
    }

    pub(crate) fn armored(&self) -> String {
        let options = ArmorOptions::default();
        self.public().to_armored_string(options).expect("armor")
    }

    pub(crate) fn fingerprint(&self) -> String {
        format!("{:X}", self.0.fingerprint())
    }

    pub(crate) fn subkey_fingerprint(&self) -> String {
        format!("{:X}", self.0.secret_subkeys[0].fingerprint())
    }

    /// A clear-signed text, by the primary key or its subkey.
    fn sign(&self, text: &str, by_subkey: bool) -> String {
        if by_subkey {
            clear_sign(&self.0.secret_subkeys[0].key, text)
        } else {
            clear_sign(&self.0.primary_key, text)
        }
    }

    fn detached(&self, text: &str) -> String {
        let signature = DetachedSignature::sign_binary_data(
            rand::thread_rng(),
            &self.0.primary_key,
            &Password::empty(),
            HashAlgorithm::Sha256,
            text.as_bytes(),
        );
        let options = ArmorOptions::default();
        let signature = signature.expect("a signature");
        signature.to_armored_string(options).expect("armor")
    }
}

fn clear_sign(key: &impl SigningKey, text: &str) -> String {
    let signed = CleartextSignedMessage::sign(rand::thread_rng(), text, key, &Password::empty());
    let options = ArmorOptions::default();
    signed
        .expect("signed")
        .to_armored_string(options)
        .expect("armor")
}

/// How a release is published.
#[derive(Clone, Copy)]
pub(crate) enum Signing {
    /// `InRelease`, by the primary key.
    Clear,
    /// `InRelease`, by the subkey.
    Subkey,
    /// `Release` and `Release.gpg`.
    Detached,
    /// `Release` alone.
    Nothing,
}

/// A mirror, the folder of a machine whose apt uses it, and its cache.
pub(crate) struct Mirror {
    pub(crate) url: String,
    pub(crate) files: Files,
    pub(crate) folder: tempfile::TempDir,
}

impl Mirror {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/debian", listener.local_addr().expect("a port"));
        let files = Files::default();
        let served = files.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let served = served.clone();
                std::thread::spawn(move || serve(&stream, &served));
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("etc/apt")).expect("a folder");
        Self { url, files, folder }
    }

    pub(crate) fn put(&self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        let path = format!("/debian/{}", path.as_ref().display());
        self.files
            .lock()
            .expect("files")
            .insert(path, content.into());
    }

    pub(crate) fn remove(&self, part: &str) {
        let mut files = self.files.lock().expect("files");
        files.retain(|path, _| !path.contains(part));
    }

    /// Publishes a suite with the packages `names`, made at `date` and valid for a day.
    pub(crate) fn publish(
        &self,
        suite: &str,
        names: &[&str],
        key: &Key,
        signing: Signing,
        date: SystemTime,
    ) {
        self.publish_until(suite, names, key, signing, (date, date + DAY));
    }

    pub(crate) fn publish_until(
        &self,
        suite: &str,
        names: &[&str],
        key: &Key,
        signing: Signing,
        (date, until): (SystemTime, SystemTime),
    ) {
        let mut index = String::new();
        for name in names {
            let sum = Digest::of("").hex();
            let _ = write!(
                index,
                "Package: {name}\nVersion: 1\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 0\nSHA256: {sum}\n\n"
            );
        }
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(index.as_bytes()).expect("packed");
        let packed = packed.finish().expect("packed");
        let sum = Digest::of(&packed).hex();
        let release = format!(
            "Origin: Test\nSuite: {suite}\nCodename: {suite}\nDate: {}\nValid-Until: {}\nSHA256:\n {sum} {} main/binary-amd64/Packages.gz\n",
            date_of(date),
            date_of(until),
            packed.len()
        );
        let dists = format!("dists/{suite}");
        self.put(
            format!("{dists}/main/binary-amd64/Packages.gz"),
            packed.clone(),
        );
        self.put(
            format!("{dists}/main/binary-amd64/by-hash/SHA256/{sum}"),
            packed,
        );
        self.remove(&format!("/debian/{dists}/InRelease"));
        self.remove(&format!("/debian/{dists}/Release"));
        let in_release = format!("{dists}/InRelease");
        match signing {
            Signing::Clear => self.put(in_release, key.sign(&release, false)),
            Signing::Subkey => self.put(in_release, key.sign(&release, true)),
            Signing::Detached => {
                self.put(format!("{dists}/Release.gpg"), key.detached(&release));
                self.put(format!("{dists}/Release"), release);
            }
            Signing::Nothing => self.put(format!("{dists}/Release"), release),
        }
    }

    /// Writes a file of the machine.
    pub(crate) fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        let parent = path.parent().expect("a parent");
        std::fs::create_dir_all(parent).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// The machine's sources: the mirror with `suites`, whose keys `signed_by` names.
    pub(crate) fn sources(&self, suites: &str, signed_by: &str) {
        let text = format!(
            "Types: deb\nURIs: {}\nSuites: {suites}\nComponents: main\n{signed_by}",
            self.url
        );
        self.write("etc/apt/sources.list.d/test.sources", &text);
    }

    /// The archive as that machine reaches it.
    pub(crate) fn archive(&self) -> Archive {
        self.archive_with(ArchiveOptions::default())
            .expect("an archive")
    }

    pub(crate) fn archive_with(
        &self,
        options: ArchiveOptions,
    ) -> Result<Archive, imagespec_debian::DebianError> {
        let host = Host {
            cache_dir: self.folder.path().join("cache"),
            ..Host::default()
        };
        let once = Retry {
            tries: 1,
            ..Retry::default()
        };
        let client = Client::new(&host).expect("a client").with_retry(once);
        let options = ArchiveOptions {
            root: self.folder.path().to_owned(),
            origin: "Test".into(),
            ..options
        };
        Archive::open(client, &host, &options)
    }
}

pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A whole second some days before now.
pub(crate) fn days_ago(days: u32) -> SystemTime {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    UNIX_EPOCH + Duration::from_secs(now.as_secs()) - DAY * days
}

/// A date as releases have it, by date(1).
fn date_of(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}")])
        .arg("+%a, %d %b %Y %H:%M:%S UTC")
        .env("LC_ALL", "C")
        .output()
        .expect("date");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn serve(stream: &TcpStream, files: &Files) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        let mut line = String::new();
        if reader.read_line(&mut request).is_err() || request.is_empty() {
            return;
        }
        while reader.read_line(&mut line).is_ok() && !line.trim().is_empty() {
            line.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let found = files.lock().expect("files").get(path).cloned();
        let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        if stream.write_all(head.as_bytes()).is_err() || stream.write_all(&body).is_err() {
            return;
        }
    }
}

//! Every fault, once and for good, in every kind of request that the client makes. Each ends in success or in
//! an error of the right kind, in bounded time, and leaves no bad blob behind.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use imagespec_core::digest::Digest;
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_http::Retry;
use imagespec_oci::image::Descriptor;
use imagespec_oci::registry::{Mounts, Tuning};
use imagespec_oci::{Reference, Registry, RegistryError};

use crate::images::{Images, pull, push};
use crate::proxy::{Fault, Proxy, Rule};
use crate::server::{AUTH, Server};

/// Longer than any case takes by far, and shorter than anybody would call a hang.
const BOUND: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Exists,
    GetManifest,
    GetBlob,
    HeadBlob,
    Mount,
    Start,
    Chunk,
    Status,
    Whole,
    PutManifest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Unreachable,
    Denied,
    Busy,
    Unexpected,
    NotFound,
    Mismatch,
}

const VERBS: [Verb; 10] = [
    Verb::Exists,
    Verb::GetManifest,
    Verb::GetBlob,
    Verb::HeadBlob,
    Verb::Mount,
    Verb::Start,
    Verb::Chunk,
    Verb::Status,
    Verb::Whole,
    Verb::PutManifest,
];

const FAULTS: [Fault; 18] = [
    Fault::Status(401),
    Fault::Status(403),
    Fault::Status(404),
    Fault::Status(408),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::CloseAtOnce,
    Fault::CloseMidRequest,
    Fault::LoseAnswer,
    Fault::CloseMidHead,
    Fault::Truncate,
    Fault::Shorten,
    Fault::Drip,
    Fault::Silence,
    Fault::WrongDigest,
    Fault::WrongContent,
    Fault::NoMount,
];

impl Verb {
    fn request(self) -> (&'static str, &'static str) {
        match self {
            Self::Exists => ("HEAD", "/manifests/"),
            Self::GetManifest => ("GET", "/manifests/"),
            Self::GetBlob => ("GET", "/blobs/sha256:"),
            Self::HeadBlob => ("HEAD", "/blobs/"),
            Self::Mount => ("POST", "mount="),
            Self::Start => ("POST", "/blobs/uploads/"),
            Self::Chunk => ("PATCH", ""),
            Self::Status => ("GET", "/blobs/uploads/"),
            Self::Whole => ("PUT", "/blobs/uploads/"),
            Self::PutManifest => ("PUT", "/manifests/"),
        }
    }
}

/// Whether the fault changes anything in an answer to this verb. The digest that a registry gives for a tag is
/// its word; nothing is there to compare it with.
fn bites(verb: Verb, fault: Fault) -> bool {
    match fault {
        Fault::Truncate | Fault::Shorten | Fault::WrongContent => {
            matches!(verb, Verb::GetManifest | Verb::GetBlob)
        }
        Fault::WrongDigest => matches!(
            verb,
            Verb::GetManifest | Verb::HeadBlob | Verb::Mount | Verb::Whole | Verb::PutManifest
        ),
        Fault::CloseMidRequest => {
            matches!(verb, Verb::Chunk | Verb::Whole | Verb::PutManifest)
        }
        Fault::NoMount => verb == Verb::Mount,
        _ => true,
    }
}

/// What a case ends in. This is the contract; it is written down apart from the code that keeps it.
fn expected(verb: Verb, fault: Fault, forever: bool) -> Outcome {
    match (verb, fault) {
        // A look that fails is followed by a GET, a session that is lost by another, a mount by an upload.
        (Verb::Exists | Verb::Status, _)
        | (Verb::Mount, Fault::Status(_) | Fault::NoMount | Fault::WrongDigest)
        | (Verb::HeadBlob, Fault::Status(404) | Fault::WrongDigest)
        // The blob is there, as the next look shows.
        | (Verb::Whole, Fault::LoseAnswer | Fault::CloseMidHead | Fault::Drip) => Outcome::Success,
        (_, Fault::Status(403)) => Outcome::Denied,
        (Verb::GetBlob, Fault::Status(404)) => Outcome::NotFound,
        (Verb::GetManifest | Verb::Start | Verb::PutManifest, Fault::Status(404)) => {
            Outcome::Unexpected
        }
        (_, Fault::WrongDigest | Fault::WrongContent) | (Verb::GetManifest, Fault::Shorten) => {
            Outcome::Mismatch
        }
        _ if !forever => Outcome::Success,
        (_, Fault::Status(401)) => Outcome::Denied,
        (_, Fault::Status(429)) => Outcome::Busy,
        (_, Fault::Status(_)) => Outcome::Unexpected,
        _ => Outcome::Unreachable,
    }
}

fn outcome<T>(result: &Result<T, RegistryError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Success,
        Err(RegistryError::Unreachable { .. }) => Outcome::Unreachable,
        Err(RegistryError::Denied { .. }) => Outcome::Denied,
        Err(RegistryError::Busy { .. }) => Outcome::Busy,
        Err(RegistryError::Unexpected { .. } | RegistryError::Protocol { .. }) => {
            Outcome::Unexpected
        }
        Err(RegistryError::NotFound(_)) => Outcome::NotFound,
        Err(RegistryError::Mismatch { .. }) => Outcome::Mismatch,
        Err(error) => panic!("an error of no expected kind: {error:?}"),
    }
}

struct Case<'a> {
    server: &'a Server,
    direct: &'a Registry,
    images: &'a Images,
    image: &'a Descriptor,
    number: usize,
    verb: Verb,
    fault: Fault,
    forever: bool,
}

impl Case<'_> {
    /// What went other than it should; nothing where all went well.
    async fn run(self) -> Option<String> {
        let (method, path) = self.verb.request();
        let mut rules = vec![Rule {
            method,
            path,
            fault: self.fault,
            times: if self.forever { 1000 } else { 1 },
        }];
        if self.verb == Verb::Status {
            rules.push(Rule {
                method: "PATCH",
                path: "",
                fault: Fault::Status(503),
                times: 1,
            });
        }
        let before: usize = rules.iter().map(|rule| rule.times).sum();
        let proxy = Proxy::start(&self.server.name(), rules).await;
        // A busy machine may be a fault of its own, which is not the one that is tested.
        let tries = if self.forever { 3 } else { 5 };
        let registry = client(&proxy.name, tries, self.patience());
        let result = tokio::time::timeout(BOUND, self.act(&registry, &proxy)).await;
        let Ok(result) = result else {
            return Some(format!("{} hangs", self.name()));
        };
        let expected = expected(self.verb, self.fault, self.forever);
        if proxy.left() == before {
            return Some(format!("{} did not happen", self.name()));
        }
        let found = outcome(&result);
        if found != expected {
            let name = self.name();
            return Some(format!(
                "{name}: expected {expected:?}, found {found:?}: {result:?}"
            ));
        }
        if found == Outcome::Success {
            // What the registry really has, without the proxy.
            let copy = Images::new();
            let reference = self.reference(&self.server.name());
            let pulled = pull(self.direct, &copy, &reference, &Platform::amd64()).await;
            match pulled {
                Ok(pulled) if pulled.digest == self.image.digest => {}
                other => return Some(format!("{}: then {other:?}", self.name())),
            }
        }
        None
    }

    /// Short where patience is what is tested, else longer than a busy machine needs.
    fn patience(&self) -> Duration {
        if self.is_slow() {
            Duration::from_secs(2)
        } else {
            BOUND / 2
        }
    }

    fn is_slow(&self) -> bool {
        matches!(self.fault, Fault::Drip | Fault::Silence)
    }

    fn name(&self) -> String {
        let often = if self.forever { "for good" } else { "once" };
        format!("{:?} {:?} {often}", self.verb, self.fault)
    }

    fn reference(&self, registry: &str) -> Reference {
        let name = match self.verb {
            Verb::Exists | Verb::GetManifest | Verb::GetBlob => "base".to_owned(),
            _ => format!("case{}", self.number),
        };
        format!("{registry}/{name}:1").parse().expect("a reference")
    }

    async fn act(&self, registry: &Registry, proxy: &Proxy) -> Result<(), RegistryError> {
        let reference = self.reference(&proxy.name);
        match self.verb {
            Verb::Exists => {
                let found = registry.head_manifest("base", "1").await?;
                assert_eq!(found, Some(self.image.digest), "{}", self.name());
            }
            Verb::GetManifest | Verb::GetBlob => {
                let copy = Images::new();
                let result = pull(registry, &copy, &reference, &Platform::amd64()).await;
                for (digest, _) in copy.store.list().expect("a list") {
                    let mut blob = copy.store.open_blob(&digest).expect("a blob");
                    let (found, _) = Digest::of_reader(&mut blob).expect("content");
                    assert_eq!(found, digest, "{}", self.name());
                }
                result?;
            }
            _ => {
                let mounts = Mounts::default();
                if self.verb == Verb::Mount {
                    for (digest, _) in self.images.store.list().expect("a list") {
                        mounts.holds(&proxy.name, "base", &digest);
                    }
                }
                push(registry, self.images, self.image, &reference, &mounts).await?;
            }
        }
        Ok(())
    }
}

/// A client that is in a hurry, and knows who it is.
fn client(name: &str, tries: u32, patience: Duration) -> Registry {
    let config = format!(r#"{{"auths":{{"{name}":{{"auth":"{AUTH}"}}}}}}"#);
    let host = Host {
        variables: BTreeMap::from([("DOCKER_AUTH_CONFIG".to_owned(), config)]),
        ..Host::default()
    };
    let tuning = Tuning {
        retry: Retry {
            tries,
            first_wait: Duration::from_millis(5),
            longest_wait: Duration::from_millis(50),
            patience,
        },
        chunk: 32 << 10,
    };
    Registry::with_tuning(&host, name, tuning).expect("a registry")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_ends_in_success_or_in_a_clear_error() {
    let Some(server) = Server::start(false) else {
        return;
    };
    let images = Images::new();
    let image = images.image_of(Platform::amd64(), "one", 100 << 10);
    let base = server.reference("base:1");
    let none = Mounts::default();
    let direct = client(&server.name(), 1, BOUND);
    push(&direct, &images, &image, &base, &none)
        .await
        .expect("a push");
    let mut cases = Vec::new();
    for verb in VERBS {
        for fault in FAULTS.into_iter().filter(|fault| bites(verb, *fault)) {
            for forever in [false, true] {
                cases.push(Case {
                    server: &server,
                    direct: &direct,
                    images: &images,
                    image: &image,
                    number: cases.len(),
                    verb,
                    fault,
                    forever,
                });
            }
        }
    }
    let count = cases.len();
    let (slow, fast): (Vec<_>, Vec<_>) = cases.into_iter().partition(Case::is_slow);
    // The slow ones mostly wait.
    let (mut wrong, more) = futures::join!(run(slow, 16), run(fast, 4));
    wrong.extend(more);
    assert!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

async fn run(cases: Vec<Case<'_>>, jobs: usize) -> Vec<String> {
    stream::iter(cases)
        .map(Case::run)
        .buffer_unordered(jobs)
        .filter_map(async |wrong| wrong)
        .collect()
        .await
}

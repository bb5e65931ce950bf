//! What registries say, each in its own way, and what becomes of it.

use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::host::Host;
use imagespec_core::platform::Platform;
use imagespec_oci::image::Descriptor;
use imagespec_oci::registry::{Mounts, Pushed};
use imagespec_oci::{Reference, Registry, RegistryError};

use crate::images::{Images, push};
use crate::proxy::{Fault, Proxy, Rule};
use crate::server::Server;

fn says(method: &'static str, path: &'static str, status: u16, body: &'static str) -> Rule {
    Rule {
        method,
        path,
        fault: Fault::Says(status, body),
        times: 1000,
    }
}

/// An image behind a proxy.
struct Behind {
    proxy: Proxy,
    registry: Registry,
    images: Images,
    image: Descriptor,
    _server: Server,
}

impl Behind {
    async fn start(rules: Vec<Rule>) -> Option<Self> {
        let server = Server::start(false)?;
        let proxy = Proxy::start(&server.name(), rules).await;
        let images = Images::new();
        Some(Self {
            registry: Registry::new(&Host::default(), &proxy.name).expect("a registry"),
            image: images.image(Platform::amd64(), "one"),
            proxy,
            images,
            _server: server,
        })
    }

    fn reference(&self) -> Reference {
        let name = format!("{}/team/app:1", self.proxy.name);
        name.parse().expect("a reference")
    }

    async fn push(&self, image: &Descriptor) -> Result<(Pushed, u64), RegistryError> {
        let reference = self.reference();
        push(
            &self.registry,
            &self.images,
            image,
            &reference,
            &Mounts::default(),
        )
        .await
    }
}

#[tokio::test]
async fn a_tag_that_is_immutable_is_respected_and_named() {
    const ECR: &str = r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag '1' already exists in the 'team/app' repository and cannot be overwritten because the tag is immutable."}]}"#;
    const HARBOR: &str = r#"{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'app:1' configured as immutable."}]}"#;
    for (status, body) in [(400, ECR), (412, HARBOR)] {
        // The extra tag of `push` may be set.
        let Some(behind) = Behind::start(Vec::new()).await else {
            return;
        };
        behind.push(&behind.image).await.expect("a first push");
        behind.proxy.add(says("PUT", "/manifests/1", status, body));
        behind.push(&behind.image).await.expect("the very image");
        let other = behind.images.image(Platform::amd64(), "two");
        let error = behind.push(&other).await.expect_err("another image");
        let RegistryError::Immutable { ref tag, found, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!((tag.as_str(), found), ("1", behind.image.digest));
        let error = BuildError::from(error);
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("team/app:1"), "{error:?}");
        assert!(error.hints[0].contains("another tag"), "{error:?}");
    }
}

#[tokio::test]
async fn a_refused_tag_that_names_nothing_is_no_immutable_one() {
    let invalid = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#;
    let rules = vec![says("PUT", "/manifests/1", 400, invalid)];
    let Some(behind) = Behind::start(rules).await else {
        return;
    };
    let error = behind.push(&behind.image).await.expect_err("refused");
    assert!(
        matches!(error, RegistryError::Unexpected { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.ends_with("manifest invalid (MANIFEST_INVALID)"),
        "{text}"
    );
}

#[tokio::test]
async fn a_registry_that_has_not_heard_yet_of_a_blob_it_took_is_asked_again() {
    let unknown = r#"{"errors":[{"code":"DIGEST_INVALID","message":"invalid"},{"code":"MANIFEST_BLOB_UNKNOWN","message":"unknown"}]}"#;
    for (times, fine) in [(2, true), (1000, false)] {
        let rules = vec![Rule {
            times,
            ..says("PUT", "/manifests/1", 400, unknown)
        }];
        let Some(behind) = Behind::start(rules).await else {
            return;
        };
        let pushed = behind.push(&behind.image).await;
        assert_eq!(pushed.is_ok(), fine, "{pushed:?}");
        if let Err(error) = pushed {
            assert!(
                error.to_string().contains("MANIFEST_BLOB_UNKNOWN"),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn harbors_way_to_say_that_there_is_nothing_is_understood_at_once() {
    const NONE: &str =
        r#"{"errors":[{"code":"UNKNOWN","message":"unknown: repository team/app not found"}]}"#;
    let rules = vec![
        says("HEAD", "/manifests/", 500, ""),
        says("GET", "/manifests/", 500, NONE),
    ];
    let Some(behind) = Behind::start(rules).await else {
        return;
    };
    assert_eq!(behind.registry.exists(&behind.reference()).await, Ok(None));
    assert_eq!(behind.proxy.seen().len(), 2, "nothing is tried again");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let start = "/blobs/uploads/";
    for (rule, message, hint) in [
        (
            says(
                "POST",
                start,
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}"#,
            ),
            "has no repository: `team/app`",
            "created before",
        ),
        (
            says(
                "POST",
                start,
                403,
                r#"{"errors":[{"code":"DENIED","message":"installation not allowed to Create organization package"}]}"#,
            ),
            "denies access to `team/app`: installation not allowed",
            "docker login",
        ),
        (
            says(
                "POST",
                start,
                400,
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#,
            ),
            "takes no more requests for now: pull rate limit",
            "later",
        ),
        (
            says("POST", start, 400, "<html>nginx</html>"),
            "answered 400 Bad Request to the start of an upload",
            "",
        ),
    ] {
        let Some(behind) = Behind::start(vec![rule]).await else {
            return;
        };
        let error = behind.push(&behind.image).await.expect_err("refused");
        let error = BuildError::from(error);
        assert!(error.message.contains(message), "{error:?}");
        assert!(error.hints.join(" ").contains(hint), "{error:?}");
        assert_eq!(
            error.kind == ErrorKind::Input,
            message.contains("no repository")
        );
    }
}

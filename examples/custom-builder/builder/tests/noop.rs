//! The builder through the pipeline, as the command uses it.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use acme_builder::ENTRY;
use imagespec_core::builder::{BuilderConfig, BuiltImage};
use imagespec_core::context::{BuildSettings, ContextFiles, Destination, Output};
use imagespec_core::digest::Digest;
use imagespec_core::error::{BuildError, ErrorKind};
use imagespec_core::event::Silent;
use imagespec_core::execute::{Candidate, Job, OnUnknown, Options, Outcome, execute};
use imagespec_core::host::Host;
use imagespec_core::login::IndexLogins;
use imagespec_core::plan::{Base, BuildPlan, PLAN_FORMAT, Python, Step};
use imagespec_core::platform::Platform;
use imagespec_core::registry::{BuilderEntry, Registry};
use indexmap::IndexMap;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const BASE: &str = "registry.example/team/base:2026";

#[derive(Debug)]
struct NoFiles;

impl ContextFiles for NoFiles {
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        Err(io::Error::new(io::ErrorKind::NotFound, path.to_owned()))
    }
}

fn plan(reference: &str) -> BuildPlan {
    BuildPlan {
        format: PLAN_FORMAT,
        platforms: vec![Platform::amd64()],
        base: Base::Reference {
            reference: reference.to_owned(),
        },
        python: Python {
            version: None,
            exec: None,
        },
        steps: Vec::new(),
        entrypoint: None,
        env: IndexMap::new(),
        runtime_packages: Vec::new(),
        helper_images: std::collections::BTreeMap::default(),
        cuda: None,
        cudnn: None,
        registry_config: None,
        files: std::collections::BTreeMap::default(),
        image_id: None,
        lock: None,
    }
}

/// What the builder makes of a plan: linked into this program, and as a program of its own, which are to agree.
async fn build(
    plan: BuildPlan,
    options: serde_json::Value,
    output: Option<Output>,
) -> Result<BuiltImage, BuildError> {
    let folder = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_imagespec-builder-noop"));
    let path = program.parent().expect("a folder").display().to_string();
    let host = Host {
        variables: [("PATH".to_owned(), path)].into(),
        cache_dir: folder.path().join("cache"),
        ..Host::default()
    };
    let external = imagespec_builder_external::entry(&host, "noop").expect("a program");
    let linked = build_with(&ENTRY, &host, plan.clone(), &options, output.clone()).await;
    let program = build_with(&external, &host, plan, &options, output).await;
    assert_eq!(linked, program);
    linked
}

async fn build_with(
    entry: &BuilderEntry,
    host: &Host,
    plan: BuildPlan,
    options: &serde_json::Value,
    output: Option<Output>,
) -> Result<BuiltImage, BuildError> {
    let options = options.as_object().cloned().unwrap_or_default();
    let builder = (entry.create)(BuilderConfig {
        name: entry.name,
        host,
        options: &options,
    })?;
    let job = Job {
        target: "app".to_owned(),
        plan,
        destination: Destination {
            registry: None,
            pull_registry: None,
            name: "app".to_owned(),
            tag: "1".to_owned(),
            extra_tags: Vec::new(),
        },
        output,
        files: Arc::new(NoFiles),
        secrets: Vec::new(),
        logins: IndexLogins::default(),
        settings: BuildSettings::default(),
        builder: Candidate {
            name: entry.name,
            builder,
        },
        fallback: None,
        base_maker: None,
        base: None,
        push: true,
    };
    let options = Options {
        jobs: 1,
        on_unknown: OnUnknown::Fail,
        dry_run: false,
    };
    let mut outcomes = execute(&[job], options, &Silent, &CancellationToken::new()).await;
    match outcomes.remove(0)? {
        Outcome::Done(image) => Ok(image),
        other @ Outcome::WouldBuild { .. } => panic!("not a dry run: {other:?}"),
    }
}

#[test]
fn is_registered() {
    let registry = Registry::linked().unwrap();
    assert_eq!(registry.get("noop").unwrap().summary, ENTRY.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_is_the_base_image() {
    let image = build(plan(BASE), json!({}), None).await.unwrap();
    assert_eq!(image.reference, BASE);
    assert_eq!((image.built, image.digest), (false, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_the_base_is_the_images() {
    let digest = Digest::of("a manifest");
    let image = build(
        plan(&format!("{BASE}@{digest}")),
        json!({"pinned": true}),
        None,
    )
    .await
    .unwrap();
    assert_eq!(image.digest, Some(digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_refused_by_capability() {
    let mut plan = plan(BASE);
    plan.steps.push(Step::AptPackages {
        packages: vec!["git".to_owned()],
    });
    let error = build(plan, json!({}), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Input);
    assert_eq!(error.field.as_deref(), Some("apt_packages"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_capability_is_refused_by_the_builder() {
    let mut with_env = plan(BASE);
    with_env.env.insert("A".to_owned(), "1".to_owned());
    let mut with_entrypoint = plan(BASE);
    with_entrypoint.entrypoint = Some(Vec::new());
    let mut with_copy = plan(BASE);
    with_copy.steps.push(Step::Copy {
        field: "source_root".to_owned(),
        from: "src".to_owned(),
        to: "/root".to_owned(),
    });
    for (plan, field) in [
        (with_env, "env"),
        (with_entrypoint, "entrypoint"),
        (with_copy, "source_root"),
    ] {
        let error = build(plan, json!({}), None).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Input);
        assert_eq!(error.field.as_deref(), Some(field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_made_elsewhere_is_written_nowhere() {
    let error = build(plan(BASE), json!({}), Some(Output::OciDir("out".into())))
        .await
        .unwrap_err();
    assert_eq!(error.field.as_deref(), Some("output"));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_checked() {
    for (options, message) in [
        (
            json!({"pined": true}),
            "builder `noop` has no option: `pined`",
        ),
        (json!({"pinned": 1}), "expected true or false: `1`"),
    ] {
        let error = build(plan(BASE), options, None).await.unwrap_err();
        assert_eq!(error.message, message);
        assert_eq!(error.field.as_deref(), Some("builder_options"));
    }
    let error = build(plan(BASE), json!({"pinned": true}), None)
        .await
        .unwrap_err();
    assert_eq!(error.field.as_deref(), Some("base_image"));
}

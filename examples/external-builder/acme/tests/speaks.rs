//! The program says who it is, as `imagespec` asks it. What it builds is compared where `native`'s images are.

use std::path::Path;

use imagespec_builder_external::entry;
use imagespec_core::builder::{Availability, Builder, BuilderConfig, Capability};
use imagespec_core::error::BuildError;
use imagespec_core::host::Host;
use serde_json::{Value, json};

fn builder(cache: &Path, options: &Value) -> Result<std::sync::Arc<dyn Builder>, BuildError> {
    let program = Path::new(env!("CARGO_BIN_EXE_imagespec-builder-acme"));
    let folder = program.parent().expect("a folder").display().to_string();
    let host = Host {
        variables: [("PATH".to_owned(), folder)].into(),
        cache_dir: cache.to_owned(),
        ..Host::default()
    };
    let entry = entry(&host, "acme").expect("a program on PATH");
    (entry.create)(BuilderConfig {
        name: "acme",
        host: &host,
        options: options.as_object().expect("an object"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_able_to_do_what_native_is_able_to_do() {
    let cache = tempfile::tempdir().expect("a folder");
    let acme = builder(cache.path(), &json!({ "cost_center": "ml" })).expect("a builder");
    assert!(acme.capabilities().contains(&Capability::Run));
    assert!(acme.capabilities().contains(&Capability::BaseDebian));
    assert!(matches!(acme.probe().await, Availability::Ready { .. }));
    for (options, problem) in [
        (json!({ "cost_center": 7 }), "expected a name: `7`"),
        (
            json!({ "cost_centre": "ml" }),
            "has no option: `cost_centre`",
        ),
    ] {
        let error = builder(cache.path(), &options).expect_err("a wrong option");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

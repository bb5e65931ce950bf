//! The API is as its document says, whatever is asked.

use std::process::{Command, Stdio};

use super::fixture::{Service, Trust};
use super::seed;

/// Checks an API against its `OpenAPI` document, and asks for what the document does not allow.
const FUZZER: &str = "schemathesis==4.32.5";

#[test]
fn the_api_is_as_its_document_says() {
    let Some(service) = Service::start(Trust::Strangers) else {
        return;
    };
    let token = service
        .place("")
        .says(&["token", "add", "fuzz", "--scope", "admin"]);
    let seed = seed() % 1_000_000;
    let output = Command::new("uvx")
        .args([
            FUZZER,
            "run",
            &format!("http://{}/openapi.json", service.address),
        ])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args([
            "--seed",
            &seed.to_string(),
            "--max-examples",
            "40",
            "--request-timeout",
            "20",
        ])
        // A stream does not end, an archive is nothing that is made up, and the token is to stay.
        .args([
            "--exclude-path",
            "/v1/builds/{id}/events",
            "--exclude-path",
            "/v1/files",
        ])
        .args(["--exclude-path", "/v1/tokens/{id}"])
        // A plan is more than the document says of it.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .current_dir(service.data.path())
        .stdin(Stdio::null())
        .output()
        .expect("uvx, which is beside uv");
    let said = String::from_utf8_lossy(&output.stdout);
    let trouble = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "seed {seed}: {said}{trouble}");
    assert_eq!(service.get("/readyz").0, 200);
}

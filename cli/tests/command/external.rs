//! Builders that are programs of their own, and what can go wrong with them.

use std::time::{Duration, Instant};

use insta::assert_snapshot;

use crate::place::Place;

/// A program that answers hello, then runs a script.
fn place(script: &str) -> Place {
    let place = Place::declaring(
        "[images.app]\nbuilder = \"odd\"\nbase_image = \"registry.example/base:1\"\n",
    );
    place.program("imagespec-builder-odd", script);
    place
}

const HELLO: &str = "#!/bin/sh\nread hello\n\
    echo '{\"type\": \"hello\", \"protocol\": 1, \"summary\": \"odd\", \
    \"capabilities\": [\"base_reference\", \"output_store\", \"telepathy\"]}'\nread request\n";

/// What a program answers that can work and has no image.
const LOOKS: &str = "case $request in\n\
    *'\"type\":\"probe\"'*) echo '{\"type\": \"availability\", \"availability\": {\"state\": \"ready\", \
    \"detail\": \"odd 1.0\"}}'; exit ;;\n\
    *'\"type\":\"find\"'*) echo '{\"type\": \"found\", \"image\": null}'; exit ;;\nesac\n";

fn answering(script: &str) -> Place {
    place(&format!("{HELLO}{script}"))
}

#[test]
fn a_program_on_path_is_a_builder() {
    let image = "{\"reference\": \"app:1\", \"digest\": null, \"builder\": \"\", \"built\": true, \"size\": 0, \
        \"pushed_bytes\": 0, \"layers\": []}";
    let place = answering(&format!(
        "{LOOKS}echo 'on standard error' >&2; sleep 0.2\n\
         echo '{{\"type\": \"event\", \"event\": {{\"event\": \"notice\", \"message\": \"odd indeed\"}}}}'\n\
         echo '{{\"type\": \"built\", \"image\": {image}}}'\n"
    ));
    let told = place.run(&["build", "--progress", "plain"]);
    assert!(told.contains("app: odd indeed\n"), "{told}");
    assert!(told.contains("app: | on standard error\n"), "{told}");
    assert!(told.contains("exit code: 0\n--- stdout\napp:1\n"), "{told}");
    let builders = place.run(&["builders"]);
    let line = builders.lines().find(|line| line.starts_with("odd "));
    let line = line.unwrap_or_else(|| panic!("{builders}"));
    assert!(line.contains("yes") && line.contains("odd 1.0"), "{line}");
}

#[test]
fn a_program_that_fails_is_told_of_by_its_name() {
    assert_snapshot!(place("#!/bin/sh\necho no luck >&2\nexit 7\n").run(&["build"]), @r"
    exit code: 1
    --- stdout
    --- stderr
    error: builder `odd` ended with code 7 without an answer
      caused by: no luck
    ");
    assert_snapshot!(place("#!/bin/sh\necho hello\n").run(&["build"]), @r"
    exit code: 1
    --- stdout
    --- stderr
    error: builder `odd` answers what is no answer
      caused by: expected value at line 1 column 1: hello
    hint: it has a fault; who wrote it will want to know
    ");
    let newer = "#!/bin/sh\nread hello\necho '{\"type\": \"hello\", \"protocol\": 2, \"summary\": \"\", \"capabilities\": []}'\n";
    assert_snapshot!(place(newer).run(&["build"]), @r"
    exit code: 3
    --- stdout
    --- stderr
    error: builder `odd` speaks version 2 of the protocol, and this program 1
    hint: update imagespec
    ");
    let refuses = "#!/bin/sh\nread hello\necho '{\"type\": \"error\", \"error\": {\"kind\": \"input\", \
        \"message\": \"builder `odd` has no option: `x`\", \"field\": \"builder_options\"}}'\n";
    assert_snapshot!(place(refuses).run(&["build", "--option", "x=1"]), @r"
    exit code: 2
    --- stdout
    --- stderr
    error: builder `odd` has no option: `x`
    ");
    let other = "echo '{\"type\": \"tagged\"}'\n";
    assert_snapshot!(answering(other).run(&["build"]), @r#"
    exit code: 3
    --- stdout
    --- stderr
    error: cannot build `app`
      caused by: builder `odd` cannot work here: builder `odd` answers something else: {"type":"tagged"}
    hint: it has a fault; who wrote it will want to know
    "#);
    assert_snapshot!(answering("").run(&["build", "--registry", "registry.example/x"]), @r"
    exit code: 3
    --- stdout
    --- stderr
    error: cannot build `app`
      caused by: builder `odd` cannot work here: builder `odd` ended with code 0 without an answer
    ");
    let late = format!("{LOOKS}echo out of luck >&2; exit 9");
    assert_snapshot!(answering(&late).run(&["build", "--progress", "quiet"]), @r"
    exit code: 1
    --- stdout
    --- stderr
    error: cannot build `app`
      caused by: builder `odd` ended with code 9 without an answer
      caused by: out of luck
    ");
}

#[test]
fn a_program_is_stopped_with_everything_it_has_started() {
    let place = answering(&format!(
        "{LOOKS}echo $$ > pid; sleep 296 & echo $! > child; touch begun; wait\n"
    ));
    let mut running = place.command(&["build"]).spawn().expect("the command");
    let begun = place.project().join("begun");
    let until = Instant::now() + Duration::from_secs(20);
    while !begun.exists() {
        assert!(Instant::now() < until, "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = running.id().to_string();
    let interrupted = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(interrupted.expect("kill").success());
    assert_eq!(running.wait().expect("an end").code(), Some(130));
    for file in ["pid", "child"] {
        let id = fs_err::read_to_string(place.project().join(file)).expect("a file");
        let left = format!("/proc/{}/cmdline", id.trim());
        // What has ended and nobody has asked for has no command line. It is killed, which takes a moment.
        let line = || fs_err::read(&left).unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(10);
        while !line().is_empty() {
            let line = line();
            let line = String::from_utf8_lossy(&line);
            assert!(Instant::now() < until, "{file} goes on: {line}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

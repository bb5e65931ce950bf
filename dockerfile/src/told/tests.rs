use std::sync::Mutex;

use imagespec_core::context::SecretMount;
use imagespec_core::error::ErrorKind;
use imagespec_core::event::{BuildEvent, Event};

use super::*;

fn instructions() -> Vec<Instruction> {
    let pair = |(title, field): &(&str, &str)| Instruction {
        title: (*title).to_owned(),
        field: (*field).to_owned(),
    };
    [("start from x", "base_image"), ("run `false`", "commands")]
        .iter()
        .map(pair)
        .collect()
}

fn vertex(name: &str, is_over: bool, error: &str) -> Vertex {
    Vertex {
        digest: name.to_owned(),
        name: name.to_owned(),
        started: true,
        completed: is_over,
        error: error.to_owned(),
        ..Vertex::default()
    }
}

fn status(vertexes: Vec<Vertex>, logs: &[(&str, &str)]) -> Status {
    let log = |(vertex, text): &(&str, &str)| Log {
        vertex: (*vertex).to_owned(),
        bytes: text.as_bytes().to_vec(),
    };
    Status {
        vertexes,
        logs: logs.iter().map(log).collect(),
        ..Status::default()
    }
}

const RUN: &str = "[2/2] RUN /bin/false";

#[test]
fn steps_have_the_names_of_the_spec_and_say_what_was_cached() {
    let events = Mutex::new(Vec::new());
    let sink = |event: Event| events.lock().expect("events").push(event.event);
    let instructions = instructions();
    let mut told = Told::new(Progress::new("x", &sink), &instructions, Mask::default());
    let mut from = vertex("[stage-0 1/2] FROM x@sha256:00", true, "");
    from.cached = true;
    told.take(status(vec![from], &[]));
    told.take(status(vec![vertex(RUN, false, "")], &[(RUN, "half a li")]));
    let moved = Moved {
        id: "layer".to_owned(),
        vertex: RUN.to_owned(),
        current: 2_500_000,
        total: 5_000_000,
    };
    told.take(Status {
        moved: vec![moved],
        ..status(vec![], &[(RUN, "ne\nanother\n")])
    });
    told.take(status(vec![vertex(RUN, true, "")], &[]));
    drop(told);
    let step = || "2/2".to_owned();
    let log = |line: &str| BuildEvent::Log {
        step: step(),
        line: line.to_owned(),
    };
    let expected = [
        BuildEvent::StepStarted {
            step: "1/2".to_owned(),
            title: "start from x".to_owned(),
        },
        BuildEvent::StepFinished {
            step: "1/2".to_owned(),
            cached: true,
            summary: "done".to_owned(),
        },
        BuildEvent::StepStarted {
            step: step(),
            title: "run `false`".to_owned(),
        },
        BuildEvent::StepProgress {
            step: step(),
            done: 2_500_000,
            total: Some(5_000_000),
        },
        log("half a line"),
        log("another"),
        BuildEvent::StepFinished {
            step: step(),
            cached: false,
            summary: "2.5 MB".to_owned(),
        },
    ];
    assert_eq!(*events.lock().expect("events"), expected);
}

fn failure(lines: &str, error: &str) -> BuildError {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("secret");
    fs_err::write(&source, "hunter2-hunter2").expect("a file");
    let target = "/x".into();
    let mask = Mask::of(&[SecretMount { source, target }]);
    let instructions = instructions();
    let silent = imagespec_core::event::Silent;
    let mut told = Told::new(Progress::new("x", &silent), &instructions, mask);
    told.take(status(vec![vertex(RUN, false, "")], &[(RUN, lines)]));
    told.take(status(vec![vertex(RUN, false, error)], &[]));
    told.failure().expect("a failure")
}

#[test]
fn a_command_that_fails_is_told_of_by_its_field_with_its_last_lines() {
    let error = failure(
        "using hunter2-hunter2\nno such thing",
        "process \"/bin/sh\" did not complete successfully: exit code: 3",
    );
    assert_eq!(error.kind, ErrorKind::Failed);
    assert_eq!(error.field.as_deref(), Some("commands"));
    assert_eq!(error.message, "cannot run `false`: it ended with code 3");
    let cause = error.source.expect("a cause").message;
    assert_eq!(cause, "using ********\nno such thing");
}

#[test]
fn what_is_wrong_with_the_declaration_is_an_error_of_the_input() {
    let error = failure("imagespec: python_exec: not there: `/x`\n", "exit code: 64");
    assert_eq!(error.kind, ErrorKind::Input);
    assert_eq!(error.field.as_deref(), Some("python_exec"));
    assert_eq!(error.message, "not there: `/x`");
}

#[test]
fn what_fails_beside_the_instructions_is_for_others_to_tell() {
    let silent = imagespec_core::event::Silent;
    let mut told = Told::new(Progress::new("x", &silent), &[], Mask::default());
    told.take(status(
        vec![vertex("exporting to image", false, "denied")],
        &[],
    ));
    assert_eq!(told.failure(), None);
}

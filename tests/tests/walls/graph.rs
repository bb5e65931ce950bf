//! Who may depend on whom.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What every builder may use.
const LIBRARIES: [&str; 10] = [
    "imagespec-core",
    "imagespec-http",
    "imagespec-bucket",
    "imagespec-build-api",
    "imagespec-oci",
    "imagespec-python",
    "imagespec-debian",
    "imagespec-conda",
    "imagespec-sandbox",
    "imagespec-dockerfile",
];

/// Crates that talk to a network, an engine, a cluster or a terminal.
const OUTSIDE: [&str; 25] = [
    "anstream",
    "axum",
    "bollard",
    "clap",
    "console",
    "crossterm",
    "curl",
    "dialoguer",
    "h2",
    "hyper",
    "indicatif",
    "isahc",
    "k8s-openapi",
    "kube",
    "native-tls",
    "openssl",
    "quinn",
    "ratatui",
    "reqwest",
    "rustls",
    "sqlx",
    "surf",
    "termcolor",
    "tonic",
    "ureq",
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(super::root().join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("the workspace has metadata")
}

fn package<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    let packages = metadata.workspace_packages();
    let found = packages.into_iter().find(|package| *package.name == name);
    found.unwrap_or_else(|| panic!("no such room: {name}"))
}

/// The names of everything that the program of a package is made of, over any number of steps.
fn closure(metadata: &Metadata, package: &Package) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let mut seen = BTreeSet::new();
    let mut open = vec![&package.id];
    while let Some(id) = open.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == *id);
        for dependency in node.into_iter().flat_map(|node| &node.deps) {
            let normal = dependency
                .dep_kinds
                .iter()
                .any(|info| info.kind == DependencyKind::Normal);
            if normal && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen.into_iter()
        .map(|id| metadata[id].name.to_string())
        .collect()
}

/// The rooms that a package names in its manifest, tests included or not.
fn rooms<'a>(metadata: &'a Metadata, package: &'a Package, tests: bool) -> Vec<&'a str> {
    let members: BTreeSet<_> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| package.name.as_str())
        .collect();
    let wanted = |kind| kind == DependencyKind::Normal || tests;
    let dependencies = package.dependencies.iter();
    dependencies
        .filter(|dependency| wanted(dependency.kind))
        .map(|dependency| dependency.name.as_str())
        .filter(|name| members.contains(name))
        .collect()
}

#[test]
fn the_core_contacts_nothing() {
    let metadata = metadata();
    let core = package(&metadata, "imagespec-core");
    let closure = closure(&metadata, core);
    let outside: Vec<_> = OUTSIDE
        .iter()
        .filter(|name| closure.contains(**name))
        .collect();
    assert_eq!(outside, [&""; 0]);
    assert_eq!(rooms(&metadata, core, true), [""; 0]);
}

#[test]
fn the_search_finds_what_is_there() {
    let metadata = metadata();
    let closure = closure(&metadata, package(&metadata, "imagespec-builder-native"));
    for name in ["imagespec-core", "reqwest", "rustls"] {
        assert!(closure.contains(name), "{name} is not in {closure:?}");
    }
}

#[test]
fn builders_and_libraries_know_only_libraries() {
    let metadata = metadata();
    let mut builders = 0;
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let builder = name.starts_with("imagespec-builder-") || name == "acme-builder";
        builders += usize::from(builder);
        if !builder && !LIBRARIES.contains(&name) {
            continue;
        }
        for room in rooms(&metadata, package, false) {
            assert!(LIBRARIES.contains(&room), "{name} depends on {room}");
        }
    }
    assert!(builders >= 3, "only {builders} builders were looked at");
}

#[test]
fn code_is_read_with_the_core_alone() {
    let metadata = metadata();
    let flyte = package(&metadata, "imagespec-flyte");
    assert_eq!(rooms(&metadata, flyte, true), ["imagespec-core"]);
    let closure = closure(&metadata, flyte);
    assert!(OUTSIDE.iter().all(|name| !closure.contains(*name)));
}

#[test]
fn builders_of_the_project_are_linked_by_the_command_alone() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let builders = rooms(&metadata, package, true)
            .into_iter()
            .filter(|room| room.starts_with("imagespec-builder-"))
            // It is nobody's builder until a program is named.
            .filter(|room| *room != "imagespec-builder-external")
            .count();
        let name = package.name.as_str();
        // The example is a program of its own over one of them.
        assert!(
            builders == 0 || ["imagespec-cli", "acme-native"].contains(&name),
            "{name} links builders"
        );
    }
}

#[test]
fn every_room_keeps_the_workspaces_lints() {
    for package in metadata().workspace_packages() {
        let manifest = fs_err::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true\n"),
            "{} has lints of its own",
            package.name
        );
    }
}

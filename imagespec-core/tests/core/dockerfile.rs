//! Plans as Dockerfiles.

use std::path::Path;

use imagespec_core::dockerfile::{Dialect, Dockerfile, Lowering, Start};
use imagespec_core::error::BuildError;
use imagespec_core::plan::PackageIndex;
use serde_json::{Value, json};

use crate::support::{folder, resolved, spec};

const BASE: &str = "imagespec-base:1";

fn lowered(declared: Value, files: &[(&str, &str)]) -> Result<Dockerfile, BuildError> {
    lowered_for(Dialect::Buildkit, declared, files)
}

fn lowered_for(
    dialect: Dialect,
    declared: Value,
    files: &[(&str, &str)],
) -> Result<Dockerfile, BuildError> {
    let folder = folder(files);
    let resolved = resolved(folder.path(), &spec(declared)).expect("resolved");
    let lowering = Lowering {
        dialect,
        base: Start::Image(BASE),
        uv: None,
        options: &["--index-strategy=unsafe-best-match".to_owned()],
        index: &PackageIndex {
            url: Some("https://index.example/simple?a&b".to_owned()),
            ..PackageIndex::default()
        },
        bytecode: true,
        secrets: &[Path::new("/run/netrc")],
    };
    Dockerfile::of(&resolved.plan, &lowering)
}

fn text(declared: Value, files: &[(&str, &str)]) -> String {
    lowered(declared, files).expect("a Dockerfile").text
}

/// The instructions, each on one line.
fn lines(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    whole.lines().map(words).collect()
}

#[test]
fn what_changes_often_comes_late() {
    let declared = json!({
        "apt_packages": ["git"], "packages": ["numpy>=2"], "env": {"A": "b"},
        "source_root": ".", "copy": ["data.txt"], "commands": ["true"], "entrypoint": ["run", "it"],
    });
    let text = text(declared, &[("main.py", ""), ("data.txt", "")]);
    let first = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let instructions: Vec<_> = lines(&text).iter().map(first).collect();
    let expected = [
        "FROM",
        "USER",
        "RUN",
        "USER",
        "RUN",
        "USER",
        "RUN",
        "ENV",
        "COPY",
        "COPY",
        "RUN",
        "ENV",
        "WORKDIR",
        "USER",
        "ENTRYPOINT",
    ];
    assert_eq!(instructions, expected);
    let lines = lines(&text);
    assert_eq!(lines[0], format!("FROM {BASE}"));
    assert!(lines[2].contains(
        "apt-get install --quiet=2 -o=Dpkg::Use-Pty=0 --yes --no-install-recommends git"
    ));
    for part in [
        "'numpy>=2'",
        "--default-index 'https://index.example/simple?a&b'",
        "--index-strategy=unsafe-best-match",
    ] {
        assert!(lines[4].contains(part), "{part}: {}", lines[4]);
    }
    assert_eq!(lines[8], r#"COPY --chown=1000:1000 ["src/","/root/"]"#);
    assert!(lines[11].starts_with("ENV _F_IMG_ID="));
    assert_eq!(lines[14], r#"ENTRYPOINT ["run","it"]"#);
}

#[test]
fn every_counted_instruction_has_a_title_and_a_field() {
    let declared = json!({"apt_packages": ["git"], "commands": ["a\nb", "c"], "source_root": "."});
    let file = lowered(declared, &[("main.py", "")]).expect("a Dockerfile");
    let told: Vec<_> = file
        .instructions
        .iter()
        .map(|one| (one.title.as_str(), one.field.as_str()))
        .collect();
    let expected = [
        ("start from imagespec-base:1", "base_image"),
        ("install Debian packages: git", "apt_packages"),
        ("copy files to /root", "source_root"),
        ("run `a` …", "commands"),
        ("run `c`", "commands"),
        ("", "name"),
    ];
    assert_eq!(told, expected);
    let counted = ["FROM", "RUN", "COPY", "WORKDIR"];
    let lines = lines(&file.text);
    let counted = lines.iter().filter(|line| {
        let first = line.split(' ').next().unwrap_or_default();
        counted.contains(&first)
    });
    assert_eq!(counted.count(), file.instructions.len());
}

#[test]
fn values_are_what_was_written() {
    let declared = json!({"env": {"A": "a \"b\" $HOME \\ 'c'", "B": ""}});
    let text = text(declared, &[]);
    assert!(text.contains(r#"A="a \"b\" \$HOME \\ 'c'""#), "{text}");
    assert!(text.contains("B=\"\""), "{text}");
    let refused = lowered(json!({"env": {"A": "two\nlines"}}), &[]).expect_err("two lines");
    assert_eq!(refused.field.as_deref(), Some("env"));
}

#[test]
fn the_environment_of_a_foreign_base_is_kept() {
    let ours = text(json!({}), &[]);
    assert!(
        ours.contains("PATH=\"/opt/venv/bin:/usr/local/sbin"),
        "{ours}"
    );
    let theirs = text(json!({"base_image": "registry.example/app:1"}), &[]);
    assert!(
        theirs.contains("PATH=\"/opt/venv/bin:$PATH:/usr/local/nvidia/bin"),
        "{theirs}"
    );
    assert!(
        theirs.contains("/usr/local/nvidia/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\""),
        "{theirs}"
    );
    let declared = json!({"base_image": "registry.example/app:1", "env": {"PATH": "/bin"}});
    let text = text(declared, &[]);
    assert!(text.contains("\n    PATH=\"/bin\""), "{text}");
}

#[test]
fn a_foreign_base_is_prepared_for_the_interpreter_that_is_named() {
    let declared = json!({
        "base_image": "registry.example/app:1", "python_exec": "/opt/py thon/bin/python3",
        "python_version": "3.12",
    });
    let file = lowered(declared, &[]).expect("a Dockerfile");
    let lines = lines(&file.text);
    let line = "sh /dev/imagespec/bin/prepare '/opt/py thon/bin/python3' 3.12";
    assert!(lines[2].ends_with(line), "{}", lines[2]);
    assert!(file.programs.contains_key(".imagespec/bin/prepare"));
    assert!(!file.needs_uv);
}

#[test]
fn secrets_are_mounted_where_python_packages_are_installed_and_nowhere_else() {
    let declared = json!({"apt_packages": ["git"], "packages": ["a"], "commands": ["true"]});
    let text = text(declared, &[]);
    let lines = lines(&text);
    let with: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("imagespec-pip-0") || line.contains("imagespec-index"))
        .collect();
    assert_eq!(with.len(), 1);
    assert!(with[0].contains("type=secret,id=imagespec-pip-0,target=/run/netrc,uid=1000"));
    assert!(with[0].contains("uv pip install"));
}

#[test]
fn a_lock_file_is_installed_as_what_it_pins() {
    let lock = ("poetry.lock", "[metadata]\nlock-version = \"2.0\"\n");
    let project = ("pyproject.toml", "[tool.poetry]\nname = \"x\"\n");
    let file = lowered(json!({"requirements": "poetry.lock"}), &[lock, project]);
    let file = file.expect("a Dockerfile");
    assert!(file.needs_pinned && file.needs_uv);
    let lines = lines(&file.text);
    assert!(
        lines[3].contains("--no-deps --requirement /dev/imagespec/pinned.txt"),
        "{}",
        lines[3]
    );
    assert!(!lines[3].contains("source=python"), "{}", lines[3]);
}

#[test]
fn a_reference_cannot_add_an_instruction() {
    let folder = folder(&[]);
    let resolved = resolved(folder.path(), &spec(json!({}))).expect("resolved");
    for base in ["", "a b", "a\nRUN x"] {
        let lowering = Lowering {
            dialect: Dialect::Buildkit,
            base: Start::Image(base),
            uv: None,
            options: &[],
            index: &PackageIndex::default(),
            bytecode: false,
            secrets: &[],
        };
        let error = Dockerfile::of(&resolved.plan, &lowering).expect_err("no reference");
        assert_eq!(error.field.as_deref(), Some("base_image"));
    }
}

#[test]
fn kaniko_is_lent_by_links_what_others_mount() {
    let declared = json!({
        "packages": ["six"],
        "apt_packages": ["tree"],
        "commands": ["true"],
        "source_root": "src",
    });
    let file = lowered_for(Dialect::Kaniko, declared, &[("src/a.py", "")]).expect("a Dockerfile");
    assert!(!file.text.contains("--mount"), "{}", file.text);
    let lines = lines(&file.text);
    let line = |word: &str| {
        let found = lines.iter().find(|line| line.contains(word));
        found.unwrap_or_else(|| panic!("no {word}: {lines:?}"))
    };
    let bin = "ln -sfn /kaniko/buildcontext/.imagespec/bin /dev/imagespec/bin; ";
    let apt = line("apt-get install");
    assert!(apt.starts_with(&format!("RUN {bin}")), "{apt}");
    assert!(
        apt.contains("ln -sfn /kaniko/secrets/imagespec-apt /dev/imagespec/apt.tar; "),
        "{apt}"
    );
    assert!(
        apt.contains("-o=Dir::Cache=/dev/imagespec/apt-cache"),
        "{apt}"
    );
    // A secret of the declaration's own is a volume where it is declared to be.
    let uv = line("pip install");
    assert!(!uv.contains("/run/netrc"), "{uv}");
    let command = line("RUN [");
    assert!(
        command.contains(bin) && command.ends_with(r#""true"]"#),
        "{command}"
    );
}

#[test]
fn kaniko_does_not_take_an_instruction_for_another_whose_files_differ() {
    let of = |version: &str| {
        let files = [("requirements.txt", version)];
        let declared = json!({ "requirements": "requirements.txt" });
        let file = lowered_for(Dialect::Kaniko, declared, &files).expect("a Dockerfile");
        let found = file.text.lines().find(|line| line.starts_with("RUN : "));
        found.expect("what the command depends on").to_owned()
    };
    assert_eq!(of("six==1.16.0"), of("six==1.16.0"));
    assert_ne!(of("six==1.16.0"), of("six==1.17.0"));
}

//! flytekit's own builder, beside ours: what it writes into a Dockerfile, ours has too.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use imagespec_testkit::contract::{CORPUS, Case};
use serde_json::Value;

use crate::contract::fill;
use crate::logins::script;
use crate::place::{Place, Running, has};

/// The flytekit that is compared with.
pub(crate) const FLYTEKIT: &str = "flytekit==1.16.31";

/// The real flytekit in a Python of its own, asked by a script of the tests.
pub(crate) struct Peer {
    _process: Running,
    asks: ChildStdin,
    answers: Box<dyn Iterator<Item = std::io::Result<String>>>,
}

impl Peer {
    pub(crate) fn start(name: &str) -> Self {
        let mut child: Child = Command::new("uv")
            .args(["run", "--quiet", "--no-project", "--with", FLYTEKIT])
            .arg(script(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("uv");
        let asks = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self {
            _process: Running(child),
            asks,
            answers: Box::new(answers),
        }
    }

    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.asks, "{question}").expect("flytekit");
        let answer = self.answers.next().expect("an answer").expect("a line");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// The Dockerfile and the files beside it, or why there are none.
    fn context(&mut self, place: &Place) -> Result<BTreeMap<String, String>, String> {
        let mut answer = self.ask(&Value::from(place.path("project").to_str()));
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(serde_json::from_value(answer["files"].take()).expect("files")),
        }
    }
}

/// All text below a folder: paths and contents. uv and layers are none.
fn texts(folder: &Path, into: &mut String) {
    for entry in fs_err::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        into.push_str(&path.display().to_string());
        into.push('\n');
        if path.is_dir() {
            texts(&path, into);
        } else if let Ok(text) = fs_err::read_to_string(&path) {
            into.push_str(&text);
        }
    }
}

/// The words of everything that a declaration says.
fn words(value: &toml::Value, into: &mut Vec<String>) {
    match value {
        toml::Value::String(text) => {
            let parts = text.split(|c: char| !c.is_alphanumeric());
            into.extend(parts.filter(|part| part.len() > 1).map(str::to_owned));
        }
        toml::Value::Array(values) => values.iter().for_each(|value| words(value, into)),
        toml::Value::Table(table) => {
            into.extend(table.keys().cloned());
            table.values().for_each(|value| words(value, into));
        }
        _ => {}
    }
}

fn place(case: &Case) -> Place {
    let mut place = Place::new(&format!("[images.app]\n{}\n", case.fields));
    place.set("IMAGESPEC_BUILDER", "default");
    fill(&place, case);
    place
}

#[test]
fn what_flytekit_names_in_its_dockerfile_ours_names_too() {
    if !has("uv") {
        return;
    }
    let mut flytekit = Peer::start("contexts.py");
    let mut compared = 0;
    for case in CORPUS {
        let place = place(case);
        let Ok(theirs) = flytekit.context(&place) else {
            continue;
        };
        place.says(&["plan", "app", "--write", "out"]);
        let mut ours = String::new();
        texts(&place.path("project/out"), &mut ours);
        let theirs: Vec<_> = theirs
            .into_iter()
            .flat_map(|(path, text)| [path, text])
            .collect();
        let theirs = theirs.join("\n");
        let mut table: toml::Table = toml::from_str(case.fields).expect("fields");
        // That of our own base is in the base already.
        table.remove("python_exec");
        let mut said = Vec::new();
        words(&toml::Value::Table(table.clone()), &mut said);
        // Names of our fields are no words of theirs.
        said.retain(|word| !table.contains_key(word));
        said.retain(|word| theirs.contains(word) && !ours.contains(word));
        assert!(said.is_empty(), "{}: {said:?}", case.name);
        compared += 1;
    }
    // flytekit refuses some that we take.
    assert!(compared * 2 > CORPUS.len(), "{compared}");
}

#[test]
fn what_flytekit_does_wrong_is_right_here() {
    if !has("uv") {
        return;
    }
    let case = Case {
        name: "what goes wrong",
        fields: "env = { A = \"a b\" }\nrequirements = \"pyproject.toml\"\n",
        files: &[(
            "pyproject.toml",
            "[project]\nname = \"x\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"six\"]\n",
        )],
    };
    let place = place(&case);
    let theirs = Peer::start("contexts.py")
        .context(&place)
        .expect("a Dockerfile");
    let file = &theirs["Dockerfile"];
    let ours = place.says(&["plan", "app", "--format", "dockerfile"]);
    // A value with a space is two variables, the second without a value.
    assert!(
        file.contains(" A=a b") && ours.contains("A=\"a b\""),
        "{ours}"
    );
    // Without commands there is an instruction that runs nothing.
    let runs_nothing =
        |line: &str| line.starts_with("RUN ") && line.trim_end().ends_with("target=/usr/bin/uv");
    assert!(file.lines().any(runs_nothing), "{file}");
    assert!(
        !ours
            .replace("\\\n", "")
            .lines()
            .any(|line| line.trim() == "RUN")
    );
    // The authorities of the base are written over, and helpers are pulled from registries.
    assert!(file.contains("/etc/ssl/certs/ca-certificates.crt"));
    assert!(!ours.contains("ca-certificates.crt"), "{ours}");
    let pulled = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("FROM "))
            .count()
    };
    assert_eq!((pulled(file), pulled(&ours)), (3, 1));
    assert!(file.starts_with("#syntax=") && !ours.contains("syntax="));
    // A project is read as a list of requirements.
    assert!(theirs["requirements_uv.txt"].contains("[project]"));

    // What it warns of in vain is honoured here, and what is not is refused by name.
    let honoured = Place::new(
        "[images.app]\ncuda = \"12\"\nentrypoint = [\"x\"]\npip_extra_args = \"--pre\"\nbuilder = \"default\"\n",
    );
    honoured.says(&["check"]);
}

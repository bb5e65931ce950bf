//! What a base image wants done in images made from it: Docker's `ONBUILD`.

use std::path::{Path, PathBuf};

use imagespec_core::contract::DEFAULT_PATH;
use imagespec_core::digest::{Digest, Framed};
use imagespec_core::error::BuildError;
use imagespec_core::platform::Platform;
use imagespec_debian::Lists;
use imagespec_oci::cache::Layer;
use imagespec_oci::image::Runtime;
use imagespec_python::index::{Loan, network};
use imagespec_sandbox::Network;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::accounts;
use crate::assemble::{Assembly, environment};
use crate::inspect::Facts;
use crate::lists::{KEYS, Lent};
use crate::machine::AUTHORITIES;
use crate::provenance::debian;
use crate::recipe::{LazyLayer, Recipe, Trigger};
use crate::run::Script;

/// The field of the spec that brings triggers along.
const FIELD: &str = "base_image";
/// Where Docker's configuration of an image has them.
const KEY: &str = "OnBuild";

/// A base whose triggers are done.
#[derive(Debug)]
pub(crate) struct Triggered {
    /// What tells it from the base and from what other triggers make of it.
    pub(crate) digest: Digest,
    pub(crate) layers: Vec<LazyLayer>,
    pub(crate) runtime: Runtime,
}

/// Takes the triggers out of the configuration of a base.
pub(crate) fn take(runtime: &mut Runtime) -> Vec<String> {
    let triggers = runtime.other.remove(KEY);
    let triggers = triggers.as_ref().and_then(Value::as_array);
    let texts = triggers.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

impl Assembly<'_> {
    /// Does what a base wants done first, in its order.
    pub(crate) async fn trigger(
        &self,
        triggers: &[String],
        manifest: Digest,
        base: (&[LazyLayer], Runtime),
        facts: &Facts,
        platform: &Platform,
    ) -> Result<Triggered, BuildError> {
        let mut layers = base.0.to_vec();
        let mut state = State::new(base.1);
        let mut digest = Framed::new("imagespec triggered base");
        digest.digest(&manifest);
        for text in triggers {
            let refused = |problem: &str| {
                let message = format!("the base image wants `ONBUILD {text}` done, {problem}");
                BuildError::input(message)
                    .field(FIELD)
                    .hint("name the image that it was made from, or one made from it by its own Dockerfile")
            };
            // Of a command in it: it may name another for those after it.
            let cwd = state.cwd().to_owned();
            let todo = state.apply(text).map_err(|problem| refused(&problem))?;
            let Some(todo) = todo else { continue };
            let host = &self.native.host;
            if host.strangers || host.contained {
                return Err(refused("and programs of a base do not run here"));
            }
            if !platform.is_host() {
                return Err(refused("and its programs do not run on this machine"));
            }
            let user = if state.is_root() {
                accounts::Found::default()
            } else {
                // As the triggers before left them.
                let facts = self
                    .facts(digest.clone().finish(), &layers, &state.runtime, platform)
                    .await?
                    .0;
                let named = &state.runtime.user;
                accounts::find(&facts, named)
                    .ok_or_else(|| refused(&format!("and it has no user `{named}`")))?
            };
            let mut env = state.env_of_commands();
            env.entry("HOME".to_owned()).or_insert(user.home);
            let (argv, ids) = match todo {
                Todo::Run(argv) => (argv, user.ids),
                Todo::Folder(folder) => (make_folder(folder, user.ids), (0, 0)),
            };
            let recipe = Recipe::Trigger(Trigger {
                text: text.clone(),
                argv,
                suite: debian(facts.distribution.as_deref(), facts.suite.as_deref())
                    .map(str::to_owned),
                env,
                cwd,
                ids,
            });
            let step = self.cx.progress.step(FIELD, recipe.title());
            let (layer, known) = self
                .layer(&layers, self.key(&layers, &recipe), recipe)
                .await?;
            digest.digest(&layer.layer.diff_id);
            layers.push(layer);
            step.finish(known, "done");
        }
        let runtime = state.runtime;
        // Where the interpreter is looked for.
        digest.list(&runtime.env, |digest, line| {
            digest.text(line);
        });
        Ok(Triggered {
            digest: digest.finish(),
            layers,
            runtime,
        })
    }

    /// Runs the command of a trigger and writes what it changed.
    pub(crate) async fn run_trigger(
        &self,
        below: &[LazyLayer],
        title: String,
        trigger: &Trigger,
    ) -> Result<Layer, BuildError> {
        let host = &self.native.host;
        let Loan { env, mounts, .. } = network(host, Path::new(AUTHORITIES));
        let lists = match trigger.suite.as_deref() {
            Some(suite) => self.archive()?.lists(suite, Path::new(KEYS))?,
            None => Lists::default(),
        };
        let authorities = mounts.iter().any(|(_, to)| to == Path::new(AUTHORITIES));
        let lent = Lent::new(host, &lists, authorities.then_some(AUTHORITIES))?;
        let script = Script {
            title,
            field: FIELD,
            argv: trigger.argv.clone(),
            cwd: PathBuf::from(&trigger.cwd),
            ids: trigger.ids,
            network: Network::Host,
            env: &trigger.env,
            lent: env,
            mounts,
            below: Some(lent.path()),
            exclude: std::iter::once(PathBuf::from("/run"))
                .chain(Lent::excluded())
                .collect(),
        };
        self.script(below, script).await
    }
}

/// What is left to be done of a trigger that changed the configuration.
#[derive(Debug, PartialEq, Eq)]
enum Todo {
    /// Program and arguments to run as the user.
    Run(Vec<String>),
    /// A folder that is to be there, of the user where it is not.
    Folder(String),
}

/// What makes a folder, and those above it, as Docker does: of a user, whoever may write there.
fn make_folder(folder: String, (uid, gid): (u32, u32)) -> Vec<String> {
    const SCRIPT: &str = r#"path=; IFS=/; for name in ${1#/}; do path=$path/$name; [ -d "$path" ] || { mkdir "$path"; chown "$2" "$path"; }; done"#;
    let words = ["/bin/sh", "-fec", SCRIPT, "sh"].map(str::to_owned);
    words
        .into_iter()
        .chain([folder, format!("{uid}:{gid}")])
        .collect()
}

/// The configuration of an image while triggers change it.
#[derive(Debug)]
struct State {
    runtime: Runtime,
    /// Values of `ARG`, which commands see and the image does not have.
    args: IndexMap<String, String>,
    /// Whether a trigger has said what runs.
    has_cmd: bool,
}

impl State {
    fn new(runtime: Runtime) -> Self {
        Self {
            runtime,
            args: IndexMap::new(),
            has_cmd: false,
        }
    }

    fn is_root(&self) -> bool {
        let root = ["", "0", "root", "0:0", "root:root"];
        root.contains(&self.runtime.user.as_str())
    }

    fn cwd(&self) -> &str {
        match self.runtime.working_dir.as_str() {
            "" => "/",
            folder => folder,
        }
    }

    /// What variables stand for in a trigger.
    fn variables(&self) -> IndexMap<String, String> {
        let mut variables = self.args.clone();
        variables.extend(environment(&self.runtime));
        variables
    }

    fn env_of_commands(&self) -> IndexMap<String, String> {
        let mut env = self.variables();
        env.entry("PATH".to_owned())
            .or_insert_with(|| DEFAULT_PATH.to_owned());
        env
    }

    /// Does what a trigger says. Returns what is left to be done, if there is something, or what is wrong.
    fn apply(&mut self, trigger: &str) -> Result<Option<Todo>, String> {
        let trigger = trigger.trim();
        let (name, rest) = trigger
            .split_once(|letter: char| letter.is_whitespace())
            .unwrap_or((trigger, ""));
        let rest = rest.trim();
        let words = || words(rest, &self.variables());
        let name = name.to_ascii_uppercase();
        if rest.starts_with("--") {
            return Err("whose options are not known here".to_owned());
        }
        match name.as_str() {
            "RUN" => return self.command(rest).map(|argv| Some(Todo::Run(argv))),
            "ENV" => {
                for (name, value) in pairs(rest, &self.variables())? {
                    let prefix = format!("{name}=");
                    let line = format!("{prefix}{value}");
                    let env = &mut self.runtime.env;
                    match env.iter_mut().find(|line| line.starts_with(&prefix)) {
                        Some(before) => *before = line,
                        None => env.push(line),
                    }
                }
            }
            "LABEL" => self.runtime.labels.extend(pairs(rest, &self.variables())?),
            "ARG" => {
                for word in words()? {
                    if let Some((name, value)) = word.split_once('=') {
                        self.args.insert(name.to_owned(), value.to_owned());
                    }
                }
            }
            "WORKDIR" => {
                let folder = words()?.join(" ");
                let folder = Path::new(self.cwd()).join(folder);
                let folder = folder.to_string_lossy().into_owned();
                self.runtime.working_dir.clone_from(&folder);
                return Ok(Some(Todo::Folder(folder)));
            }
            "USER" => self.runtime.user = words()?.join(" "),
            "SHELL" => {
                let shell = json_form(rest).ok_or("which is no list of JSON")?;
                self.set("Shell", json!(shell));
            }
            "CMD" => {
                self.runtime.cmd = Some(self.command(rest)?);
                self.has_cmd = true;
            }
            "ENTRYPOINT" => {
                let entrypoint = self.command(rest)?;
                self.runtime.entrypoint = Some(entrypoint).filter(|words| !words.is_empty());
                // As in Docker: it was for the entrypoint before.
                if !self.has_cmd {
                    self.runtime.cmd = None;
                }
            }
            "EXPOSE" => {
                let port = |word: String| {
                    if word.contains('/') {
                        word
                    } else {
                        format!("{word}/tcp")
                    }
                };
                let ports = words()?.into_iter().map(port).collect();
                self.add("ExposedPorts", ports);
            }
            "VOLUME" => {
                let volumes = json_form(rest).map_or_else(words, Ok)?;
                self.add("Volumes", volumes);
            }
            "STOPSIGNAL" => {
                let signal = words()?.join(" ");
                self.set("StopSignal", json!(signal));
            }
            "HEALTHCHECK" => {
                let test = match rest.split_once(char::is_whitespace) {
                    _ if rest.eq_ignore_ascii_case("none") => vec!["NONE".to_owned()],
                    Some((cmd, rest)) if cmd.eq_ignore_ascii_case("cmd") => {
                        let form = json_form(rest.trim());
                        let (kind, words) = match form {
                            Some(argv) => ("CMD", argv),
                            None => ("CMD-SHELL", vec![rest.trim().to_owned()]),
                        };
                        std::iter::once(kind.to_owned()).chain(words).collect()
                    }
                    _ => return Err("which is neither `NONE` nor `CMD …`".to_owned()),
                };
                self.set("Healthcheck", json!({ "Test": test }));
            }
            "MAINTAINER" => {}
            "COPY" | "ADD" => {
                return Err(
                    "which takes files of a Docker context, and an ImageSpec has none".to_owned(),
                );
            }
            _ => return Err("which is not known".to_owned()),
        }
        Ok(None)
    }

    /// Program and arguments of a command in either of its forms.
    fn command(&self, text: &str) -> Result<Vec<String>, String> {
        if text.is_empty() {
            return Err("which names no command".to_owned());
        }
        if let Some(argv) = json_form(text) {
            return Ok(argv);
        }
        let shell = self.runtime.other.get("Shell").and_then(Value::as_array);
        let shell = shell.into_iter().flatten().filter_map(Value::as_str);
        let mut argv: Vec<_> = shell.map(str::to_owned).collect();
        if argv.is_empty() {
            argv = ["/bin/sh", "-c"].map(str::to_owned).to_vec();
        }
        argv.push(text.to_owned());
        Ok(argv)
    }

    fn set(&mut self, key: &str, value: Value) {
        self.runtime.other.insert(key.to_owned(), value);
    }

    fn add(&mut self, key: &str, names: Vec<String>) {
        let entry = self.runtime.other.entry(key).or_insert(Value::Null);
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        if let Value::Object(set) = entry {
            set.extend(names.into_iter().map(|name| (name, json!({}))));
        }
    }
}

/// The strings of a list of JSON, if it is one.
fn json_form(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Names and values as `ENV` and `LABEL` have them: `name=value …`, or one `name value`.
fn pairs(
    text: &str,
    variables: &IndexMap<String, String>,
) -> Result<Vec<(String, String)>, String> {
    let first = text.split(char::is_whitespace).next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or("which has no value")?;
        let value = words(value.trim(), variables)?.join(" ");
        return Ok(vec![(name.to_owned(), value)]);
    }
    let pair = |word: String| {
        let (name, value) = word.split_once('=').ok_or("which has no value")?;
        Ok((name.to_owned(), value.to_owned()))
    };
    words(text, variables)?.into_iter().map(pair).collect()
}

/// The words of a text, without quotes and with what variables stand for.
fn words(text: &str, variables: &IndexMap<String, String>) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (_, None) if letter.is_whitespace() => all.extend(word.take()),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = letters.peek().copied();
                let is_special = quote.is_none() || matches!(next, Some('"' | '$' | '\\'));
                let word = word.get_or_insert_default();
                match next {
                    Some(next) if is_special => {
                        letters.next();
                        word.push(next);
                    }
                    _ => word.push('\\'),
                }
            }
            ('$', None | Some('"')) => {
                let value = variable(&mut letters, variables)?;
                word.get_or_insert_default().push_str(&value);
            }
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("which has a quote without its end".to_owned());
    }
    all.extend(word);
    Ok(all)
}

/// What the variable after a `$` stands for.
fn variable(
    letters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    variables: &IndexMap<String, String>,
) -> Result<String, String> {
    let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
    let get = |name: &str| variables.get(name).cloned();
    if letters.peek() != Some(&'{') {
        let mut name = String::new();
        while let Some(letter) = letters.next_if(is_name) {
            name.push(letter);
        }
        return Ok(match name.as_str() {
            "" => "$".to_owned(),
            name => get(name).unwrap_or_default(),
        });
    }
    letters.next();
    let inside: String = letters
        .by_ref()
        .take_while(|letter| *letter != '}')
        .collect();
    let end = inside.find(|letter: char| !is_name(&letter));
    let (name, rest) = inside.split_at(end.unwrap_or(inside.len()));
    let (is_empty_unset, rest) = match rest.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let value = get(name).filter(|value| !(is_empty_unset && value.is_empty()));
    if let Some(other) = rest.strip_prefix('-') {
        return Ok(value.unwrap_or_else(|| other.to_owned()));
    }
    if let Some(other) = rest.strip_prefix('+') {
        return Ok(value.map(|_| other.to_owned()).unwrap_or_default());
    }
    if rest.is_empty() && !is_empty_unset && !name.is_empty() {
        return Ok(value.unwrap_or_default());
    }
    Err(format!("whose `${{{inside}}}` is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(Runtime {
            env: vec!["PATH=/bin".to_owned(), "EMPTY=".to_owned()],
            cmd: Some(vec!["old".to_owned()]),
            ..Runtime::default()
        })
    }

    fn of(text: &str) -> Result<Vec<String>, String> {
        let variables = [("A", "x y"), ("EMPTY", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        words(text, &variables.into_iter().collect())
    }

    #[test]
    fn words_are_docker_s() {
        for (text, expected) in [
            ("a  b", &["a", "b"][..]),
            (r#"a="b c" 'd $A' e\ f"#, &["a=b c", "d $A", "e f"]),
            (r#"$A "${A}" \$A "\$A\n""#, &["x y", "x y", "$A", r"$A\n"]),
            ("${A:-z}${N:-z}${EMPTY:-e}${EMPTY-e}", &["x yze"]),
            ("${A:+z}.${N:+z}.${EMPTY:+e}.${EMPTY+e}", &["z...e"]),
            ("''", &[""]),
            ("$", &["$"]),
            ("", &[]),
        ] {
            assert_eq!(of(text).expect(text), expected, "{text}");
        }
        for text in ["'a", "${A#x}", "${}", "${A:?x}"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn triggers_change_the_configuration() {
        let mut state = state();
        for trigger in [
            "ARG WHERE=/srv NOTHING",
            "ENV HOME_OF=$WHERE/app PATH=\"$PATH:/x\"",
            "env OLD style value",
            "LABEL a=b \"c d\"=e",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK CMD curl localhost",
            "USER root",
            "ENTRYPOINT [\"serve\", \"$HOME_OF\"]",
            "SHELL [\"/bin/bash\", \"-ec\"]",
            "CMD echo hi",
            "MAINTAINER somebody",
        ] {
            assert_eq!(state.apply(trigger), Ok(None), "{trigger}");
        }
        assert_eq!(
            state.apply("RUN echo $A"),
            Ok(Some(Todo::Run(vec![
                "/bin/bash".into(),
                "-ec".into(),
                "echo $A".into()
            ])))
        );
        assert_eq!(
            state.apply("WORKDIR $HOME_OF"),
            Ok(Some(Todo::Folder("/srv/app".into())))
        );
        state.apply("WORKDIR sub").expect("applied");
        state.apply("USER nobody").expect("applied");
        let text = serde_json::to_value(&state.runtime).expect("JSON");
        assert_eq!(
            text,
            json!({
                "User": "nobody",
                "Env": ["PATH=/bin:/x", "EMPTY=", "HOME_OF=/srv/app", "OLD=style value"],
                "Entrypoint": ["serve", "$HOME_OF"],
                "Cmd": ["/bin/bash", "-ec", "echo hi"],
                "WorkingDir": "/srv/app/sub",
                "Labels": {"a": "b", "c d": "e"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/data": {}},
                "StopSignal": "SIGINT",
                "Healthcheck": {"Test": ["CMD-SHELL", "curl localhost"]},
                "Shell": ["/bin/bash", "-ec"],
            })
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for trigger in [
            "COPY . /app",
            "ADD a b",
            "RUN --mount=type=cache,target=/x true",
            "RUN",
            "ENV A",
            "SHELL bash",
            "HEALTHCHECK --interval=5s CMD x",
            "FROM x",
            "",
        ] {
            assert!(state().apply(trigger).is_err(), "{trigger}");
        }
    }
}

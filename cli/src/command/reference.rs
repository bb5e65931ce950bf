//! The book's chapter on everything that can be written, as the code has it.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory as _};
use imagespec_core::error::BuildError;
use imagespec_core::registry::Registry;
use serde_json::{Map, Value};

use crate::args::{Cli, EXIT_CODES};
use crate::env;
use crate::load::File;
use crate::report::print;

const HEAD: &str = "\
# Reference

Everything that can be written in files, on the command line and in the environment. This chapter is printed by the code:
`cargo xtask docs` writes it.
";

pub(super) fn reference() -> Result<u8, BuildError> {
    let mut text = HEAD.to_owned();
    commands(&mut text);
    files(&mut text);
    builders(&mut text)?;
    text.push_str("\n## Environment\n\n| variable | meaning |\n|---|---|\n");
    for variable in env::ALL {
        row(&mut text, &[&code(variable.name), variable.meaning]);
    }
    text.push_str(
        "\nFurther ones count as their own programs read them: those of Docker (`DOCKER_HOST`, `DOCKER_CONTEXT`, \
         `DOCKER_CONFIG`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`), of pip and uv (indexes, authorities), and the proxies.\n",
    );
    text.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for (number, meaning) in EXIT_CODES {
        row(&mut text, &[&number.to_string(), meaning]);
    }
    print(text.trim_end())?;
    Ok(0)
}

fn row(text: &mut String, cells: &[&str]) {
    let cells = cells.iter().map(|cell| cell.replace('\n', " "));
    let cells: Vec<_> = cells.map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Every command that is listed, and those of it.
fn commands(text: &mut String) {
    text.push_str("\n## Commands\n");
    let mut root = Cli::command();
    root.build();
    arguments(text, &root, &|_| true);
    all(text, &root);
}

/// The commands of a command that are for people.
fn all(text: &mut String, command: &clap::Command) {
    let commands = command.get_subcommands();
    for command in commands.filter(|command| !command.is_hide_set()) {
        one(text, command);
    }
}

fn one(text: &mut String, command: &clap::Command) {
    let mut command = command.clone();
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_bin_name().unwrap_or_default();
    let about = command.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    let _ = write!(
        text,
        "\n### `{name}`\n\n{about}.\n\n```text\n{usage}\n```\n"
    );
    // What every command has stands before them all.
    arguments(text, &command, &|argument| !argument.is_global_set());
    all(text, &command);
}

fn arguments(text: &mut String, command: &clap::Command, counts: &dyn Fn(&Arg) -> bool) {
    let listed = command.get_arguments().filter(|argument| {
        let is_everywhere = ["help", "version"].contains(&argument.get_id().as_str());
        !argument.is_hide_set() && counts(argument) && !is_everywhere
    });
    let rows: Vec<_> = listed.map(argument).collect();
    if rows.is_empty() {
        return;
    }
    text.push_str("\n| argument | meaning |\n|---|---|\n");
    for (name, meaning) in rows {
        row(text, &[&name, &meaning]);
    }
}

fn argument(argument: &Arg) -> (String, String) {
    let takes = argument.get_action().takes_values();
    let value = argument.get_value_names().and_then(|names| names.first());
    let value = value
        .filter(|_| takes)
        .map_or_else(String::new, |name| format!(" <{name}>"));
    let short = argument.get_short().map(|short| code(&format!("-{short}")));
    let long = argument
        .get_long()
        .map(|long| code(&format!("--{long}{value}")));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let name = if names.is_empty() {
        code(value.trim())
    } else {
        names.join(", ")
    };
    let mut meaning = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let values = argument.get_possible_values();
    let values: Vec<_> = values
        .iter()
        .filter(|value| takes && !value.is_hide_set())
        .map(|value| code(value.get_name()))
        .collect();
    if !values.is_empty() {
        let _ = write!(meaning, ": {}", values.join(", "));
    }
    let defaults = argument.get_default_values().first();
    if let Some(default) = defaults.filter(|_| takes) {
        let _ = write!(meaning, " (default: `{}`)", default.display());
    }
    (name, meaning)
}

/// The tables of `imagespec.toml`.
fn files(text: &mut String) {
    let schema = schemars::schema_for!(File).to_value();
    let named = |name: &str| &schema["$defs"][name];
    text.push_str("\n## `imagespec.toml`\n");
    for (title, table) in [
        ("At the top", &schema),
        (
            "`[images.NAME]`, or a file with one image",
            named("ImageSpec"),
        ),
        ("`[deployments.NAME]`", named("Deployment")),
        ("`[registries.\"HOST:PORT\"]`", named("RegistrySettings")),
    ] {
        let _ = write!(
            text,
            "\n### {title}\n\n| key | type | meaning |\n|---|---|---|\n"
        );
        let none = Map::new();
        let keys = table["properties"].as_object().unwrap_or(&none);
        for (key, value) in keys {
            let meaning = value["description"].as_str().unwrap_or_default();
            row(text, &[&code(key), &kind(value, &schema), meaning]);
        }
    }
}

/// What a value is, as a person says it.
fn kind(value: &Value, schema: &Value) -> String {
    if let Some(name) = value["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap_or_default();
        return kind(&schema["$defs"][name], schema);
    }
    if let Some(constant) = value["const"].as_str() {
        return code(constant);
    }
    let either = value["anyOf"]
        .as_array()
        .or_else(|| value["oneOf"].as_array());
    if let Some(either) = either {
        let mut kinds: Vec<_> = either.iter().map(|value| kind(value, schema)).collect();
        kinds.retain(|kind| !kind.is_empty());
        kinds.dedup();
        return kinds.join(" or ");
    }
    if let Some(values) = value["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str).map(code);
        return values.collect::<Vec<_>>().join(", ");
    }
    let kinds = match &value["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => Vec::from_iter(kind.as_str()),
    };
    let kinds = kinds.into_iter().filter(|kind| *kind != "null");
    let kinds = kinds.map(|kind| match kind {
        "array" if value["items"]["type"] == "array" => "list of lists of text".to_owned(),
        "array" => "list of text".to_owned(),
        "object" if value["additionalProperties"]["type"] == "string" => "table of text".to_owned(),
        "object" => "table".to_owned(),
        "string" => "text".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        kind => kind.to_owned(),
    });
    kinds.collect::<Vec<_>>().join(" or ")
}

fn builders(text: &mut String) -> Result<(), BuildError> {
    text.push_str(
        "\n## Options of builders\n\nIn `builder_options` of an image, in `[deployments.NAME.builders.BUILDER]`, or \
         `--option KEY=VALUE`.\n",
    );
    for entry in Registry::linked()?.entries() {
        let aliases = entry.aliases.iter().map(|alias| code(alias));
        let aliases = aliases.collect::<Vec<_>>().join(", ");
        let aliases = match aliases.as_str() {
            "" => String::new(),
            aliases => format!(" ({aliases})"),
        };
        let (name, summary) = (entry.name, entry.summary);
        let _ = write!(
            text,
            "\n### `{name}`\n\n`{name}`{aliases} is {summary}.\n\n| option | meaning |\n|---|---|\n"
        );
        for (option, meaning) in entry.options {
            row(text, &[&code(option), meaning]);
        }
    }
    Ok(())
}

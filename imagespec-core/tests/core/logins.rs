//! Logins in URLs of package indexes: in no plan, no digest and no file, and at hand for whoever fetches.

use imagespec_core::context::ContextFiles as _;
use imagespec_core::resolve::Resolved;
use serde_json::{Value, json};

use crate::support::{folder, resolved, spec};

const REQUIREMENTS: &str = "--index-url https://USER@index.example/simple\n\
    # https://USER@old.example/\n\
    x @ https://USER@files.example/x-1-py3-none-any.whl\n";
const PYPROJECT: &str = "[project]\nname = \"p\"\nversion = \"1\"\n\
    [[tool.uv.index]]\nurl = \"https://USER@index.example/simple\"\n";

/// What a spec means in a folder whose texts hold `user` where they say USER.
fn with(user: &str, spec_json: &Value) -> Resolved {
    let text = |text: &str| text.replace("USER@", user);
    let folder = folder(&[
        ("r/requirements.txt", &text("-r more/a.txt\n")),
        ("r/more/a.txt", &text(REQUIREMENTS)),
        ("p/pyproject.toml", &text(PYPROJECT)),
        ("p/uv.lock", &text("# https://USER@index.example/simple\n")),
    ]);
    let json = text(&spec_json.to_string());
    let json = serde_json::from_str(&json).expect("JSON");
    resolved(folder.path(), &spec(json)).expect("resolved")
}

#[test]
fn a_login_changes_neither_plan_nor_digest_and_is_in_no_file() {
    for (declared, urls) in [
        (
            json!({"packages": ["x"], "pip_index": "https://USER@a.example/simple"}),
            vec!["https://a.example/simple"],
        ),
        (
            json!({"packages": ["x"], "pip_extra_index_url": ["https://b.example", "https://USER@c.example/"]}),
            vec!["https://c.example/"],
        ),
        (
            json!({"packages": ["x @ https://USER@d.example/x.whl"],
                "pip_extra_args": "--pre --find-links='https://USER@e.example/'"}),
            vec!["https://d.example/x.whl", "https://e.example/"],
        ),
        (
            json!({"requirements": "r/requirements.txt"}),
            vec![
                "https://index.example/simple",
                "https://files.example/x-1-py3-none-any.whl",
            ],
        ),
        (
            json!({"requirements": "p/uv.lock"}),
            vec!["https://index.example/simple"],
        ),
        (
            json!({"requirements": "p/pyproject.toml"}),
            vec!["https://index.example/simple"],
        ),
    ] {
        let (without, secret) = (with("", &declared), with("me:pa55@", &declared));
        assert_eq!(without.plan, secret.plan);
        assert_eq!(without.destination.tag, secret.destination.tag);
        assert!(without.logins.is_empty());
        let found: Vec<_> = secret.logins.iter().map(|login| &login.url).collect();
        assert_eq!(found, urls);
        assert!(
            secret
                .logins
                .iter()
                .all(|login| login.userinfo() == "me:pa55")
        );
        assert!(!format!("{secret:?}").contains("pa55"));
        for path in secret.plan.files.keys() {
            let content = secret.files.read(path).expect("a file");
            assert!(
                !String::from_utf8_lossy(&content).contains("pa55"),
                "{path}"
            );
        }
    }
}

#[test]
fn a_file_with_a_login_is_not_copied_into_an_image() {
    let requirements = REQUIREMENTS.replace("USER@", "me:pa55@");
    let files = [
        ("requirements.txt", requirements.as_str()),
        ("main.py", "'me:pa55@'"),
    ];
    let folder = folder(&files);
    let declared = |field: &str| {
        let value = if field == "copy" {
            json!(["requirements.txt"])
        } else {
            json!(".")
        };
        spec(json!({"requirements": "requirements.txt", field: value}))
    };
    for field in ["copy", "source_root"] {
        let error = resolved(folder.path(), &declared(field)).expect_err("a login");
        assert_eq!(
            error.message,
            format!(
                "`{field}` copies a file that holds the login of a package index: `requirements.txt`"
            )
        );
        assert_eq!(error.field.as_deref(), Some(field));
    }
    fs_err::write(folder.path().join(".dockerignore"), "requirements.txt\n").expect("a file");
    let plan = resolved(folder.path(), &declared("source_root"))
        .expect("resolved")
        .plan;
    assert!(plan.files.contains_key("src/main.py"));
}

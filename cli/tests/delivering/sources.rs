//! What has no wheel is built in the sandbox, with the image's own interpreter and with its secrets, and leaves
//! nothing but a wheel.

use std::path::Path;
use std::process::Command;

use imagespec_core::digest::Digest;

use crate::logins::{holding, serve};
use crate::place::{Place, Running, has};

const LOGIN: &str = "builder:c0rrect-horse-8";
const WORD: &str = "st4ple-battery-9137";

/// An index of source distributions, with repositories where `git` is wanted, and its port.
fn index(folder: &Path, git: bool) -> (Running, u16) {
    let more: &[&str] = if git { &["git"] } else { &[] };
    serve("sources.py", folder, LOGIN, more)
}

fn python(place: &Place, image: &str, program: &str) -> String {
    let run = ["exec", image, "--progress", "quiet", "--", "python", "-c"];
    place.says(&[&run[..], &[program]].concat())
}

/// Forgets that a wheel was built.
fn forget(place: &Place, name: &str) {
    let mut found = 0;
    for entry in fs_err::read_dir(place.cache().join("built")).expect("records") {
        let path = entry.expect("an entry").path();
        let text = fs_err::read_to_string(&path).expect("a record");
        if text.contains(&format!("\"{name}\"")) {
            fs_err::remove_file(path).expect("a record");
            found += 1;
        }
    }
    assert!(found > 0, "no record of {name}");
}

#[test]
fn a_source_distribution_becomes_a_wheel_and_its_secret_stays_one() {
    if !has("python3") {
        return;
    }
    let served = tempfile::tempdir().expect("a folder");
    let (_server, port) = index(served.path(), false);
    let mut place = Place::new(&format!(
        r#"
[images.secret]
packages = ["only-source"]
pip_extra_index_url = ["http://127.0.0.1:{port}/simple"]
pip_secret_mounts = [["word.txt", "/run/secrets/word"], ["netrc", "/root/.netrc"]]
[images.pinned]
requirements = "requirements.txt"
[images.wrong]
requirements = "wrong.txt"
"#
    ));
    let archive = fs_err::read(served.path().join("files/plain-source-1.0.tar.gz"));
    let digest = Digest::of(archive.expect("an archive"));
    let requirements = |digest: &Digest| {
        format!(
            "--extra-index-url http://127.0.0.1:{port}/simple\nplain-source==1.0 --hash={digest}\n"
        )
    };
    place.write("word.txt", WORD);
    let (user, password) = LOGIN.split_once(':').expect("a login");
    let netrc = format!("machine 127.0.0.1 login {user} password {password}\n");
    place.write("netrc", &netrc);
    place.write("requirements.txt", &requirements(&digest));
    place.write("wrong.txt", &requirements(&Digest::of("another")));
    place.write("home/.keep", "");
    let home = place.path("project/home");
    place.set("HOME", &home.to_string_lossy());

    let layout = place.path("layout");
    let to = format!("oci:{}", layout.display());
    let mut told = String::new();
    for more in [&["--progress", "plain"][..], &["--output", &to]] {
        let output = place.run(&[&["build", "secret", "--no-bytecode"], more].concat());
        told.push_str(&String::from_utf8_lossy(&output.stdout));
        told.push_str(&String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{told}");
    }
    // The build has read it and told it.
    assert!(told.contains("the word is ********"), "{told}");
    assert!(!told.contains(WORD) && !told.contains(password), "{told}");
    let searched = [place.cache(), &layout];
    assert_eq!(holding(&searched, &[WORD, password]), "");
    for folder in [served.path(), &home] {
        assert!(!folder.join("touched").exists(), "{}", folder.display());
    }
    let look = "import only_source as o, six, importlib.util as u; print(o.PYTHON, o.WORD, u.find_spec('setuptools'))";
    let hash = Digest::of(WORD).hex();
    assert_eq!(
        python(&place, "secret", look),
        format!("(3, 11) {hash} None")
    );
    let traces = "import os; print(os.listdir('/tmp'), [n for n in os.listdir('/root') if n != '.cache'], os.listdir('/run'))";
    assert!(!python(&place, "secret", traces).contains("touched"));

    let built = place.says(&["build", "secret", "--no-bytecode"]);
    forget(&place, "only-source");
    let again = [
        "build",
        "secret",
        "--no-bytecode",
        "--force",
        "--progress",
        "plain",
    ];
    let output = place.run(&again);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("the word is"), "it is built again: {told}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), built);

    place.says(&["build", "pinned", "--no-bytecode"]);
    let look = "import plain_source; print(plain_source.VERSION)";
    assert_eq!(python(&place, "pinned", look), "1.0");
    let (code, told) = place.fails(&["build", "wrong", "--no-bytecode"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("plain-source==1.0"), "{told}");
}

#[test]
fn a_build_that_fails_says_what_it_said_and_what_may_be_missing() {
    if !has("python3") {
        return;
    }
    let served = tempfile::tempdir().expect("a folder");
    let (_server, port) = index(served.path(), false);
    let place = Place::new(&format!(
        r#"
[images.broken]
packages = ["broken-source"]
pip_extra_index_url = ["http://127.0.0.1:{port}/simple"]
[images.compiled]
packages = ["compiled-source"]
pip_extra_index_url = ["http://127.0.0.1:{port}/simple"]
"#
    ));
    let (code, told) = place.fails(&["build", "broken", "--no-bytecode", "--progress", "quiet"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("cannot build `broken-source"), "{told}");
    assert!(told.contains("no good: boom"), "{told}");
    assert!(!told.contains("apt_packages"), "{told}");
    let (code, told) = place.fails(&["build", "compiled", "--no-bytecode", "--progress", "quiet"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("cannot build `compiled-source==1.0` from source"),
        "{told}"
    );
    assert!(told.contains("apt_packages = [\"gcc\""), "{told}");
}

#[test]
fn repositories_are_built_at_the_commit_they_had() {
    if !has("python3") || !has("git") {
        return;
    }
    let served = tempfile::tempdir().expect("a folder");
    let (_server, port) = index(served.path(), true);
    let work = served.path().join("work");
    let git = |repository: &str, arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=n", "-c", "user.email=n@host.example"]);
        let output = git
            .args(arguments)
            .current_dir(work.join(repository))
            .output()
            .expect("git");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let commit = git("two", &["rev-parse", "HEAD"]);
    let one_path = work.join("one").display().to_string();
    let one = format!("git+file://{}/one", work.display());
    let mut place = Place::new(&format!(
        r#"
[images.branch]
packages = ["one-source @ {one}@main#subdirectory=inner"]
[images.commit]
requirements = "requirements.txt"
[images.project]
requirements = "p/pyproject.toml"
[images.ssh]
packages = ["one-source @ git+ssh://git@host.example{one_path}@main#subdirectory=inner"]
[images.nowhere]
packages = ["one-source @ {one}@no-such-branch"]
"#
    ));
    place.write(
        "requirements.txt",
        &format!("# git+https://not.example/asked\ntwo-source @ git+http://{LOGIN}@127.0.0.1:{port}/guarded/two.git@{commit}\n"),
    );
    place.write(
        "p/pyproject.toml",
        &format!(
            "[project]\nname = \"p\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"one-source\"]\n\
             [tool.uv.sources]\none-source = {{ git = \"file://{}/one\", branch = \"main\", subdirectory = \"inner\" }}\n",
            work.display()
        ),
    );
    // It runs here what git would run there, if it is given the agent.
    place.write(
        "ssh",
        "#!/bin/sh\ntest \"$SSH_AUTH_SOCK\" = /the/agent || exit 1\nfor last; do :; done\nexec sh -c \"$last\"\n",
    );
    let ssh = format!("sh {}", place.path("project/ssh").display());
    place.set("GIT_SSH_COMMAND", &ssh);
    place.set("SSH_AUTH_SOCK", "/the/agent");
    let build = |image: &str, more: &[&str]| {
        place.says(&[&["build", image, "--no-bytecode"], more].concat())
    };
    build("branch", &[]);
    let look = "import one_source; print(one_source.VERSION)";
    assert_eq!(python(&place, "branch", look), "1.0");

    build("ssh", &[]);
    assert_eq!(python(&place, "ssh", look), "1.0");
    build("project", &[]);
    assert_eq!(python(&place, "project", look), "1.0");

    let output = place.run(&["build", "commit", "--no-bytecode", "--progress", "plain"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let password = LOGIN.split(':').next_back().expect("a password");
    assert!(!told.contains(password), "{told}");
    let kept = ["git", "built", "locks", "wheels"].map(|name| place.cache().join(name));
    let kept: Vec<_> = kept.iter().map(std::path::PathBuf::as_path).collect();
    assert_eq!(holding(&kept, &[password]), "");
    let submodule = "import sub.part; print(sub.part.PART)";
    assert_eq!(python(&place, "commit", submodule), "of a submodule");

    // A branch is followed when the image is forced, and only then.
    let module = work.join("one/inner/one_source.py");
    fs_err::write(module, "VERSION = 'moved'\n").expect("a file");
    git("one", &["commit", "--quiet", "--all", "--message=moved"]);
    build("branch", &[]);
    assert_eq!(python(&place, "branch", look), "1.0");
    build("branch", &["--force"]);
    assert_eq!(python(&place, "branch", look), "moved");

    let (code, told) = place.fails(&["build", "nowhere", "--progress", "quiet"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("cannot fetch the repository") && told.contains("no-such-branch"));
}

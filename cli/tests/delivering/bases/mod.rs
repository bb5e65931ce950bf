//! Images that start from images of a registry, whoever made those.

mod musl;
mod ubuntu;
mod variant;

use serde_json::Value;

use crate::engine::{Engine, Release};
use crate::place::{Place, exec};

pub(crate) use variant::Ground;

/// What a build had to do that a later one must not.
const WORK: [&str; 4] = [
    "base_layers_fetched",
    "bytes_fetched",
    "layers_written",
    "wheels_fetched",
];

fn app(ground: &Ground, base: &str, more: &str) -> String {
    format!(
        "[images.app]\nregistry = \"{}\"\nbase_image = \"{}\"\n{more}\n",
        ground.served.address,
        ground.name(base)
    )
}

fn tag(built: &Value) -> String {
    let reference = built["reference"].as_str().expect("a reference");
    reference.rsplit_once(':').expect("a tag").1.to_owned()
}

#[test]
fn layers_of_a_base_are_fetched_once_and_never_sent() {
    let Some(ground) = Ground::new() else {
        return;
    };
    ground.indexed("ground", "1");
    ground.reformed("docker:1", &["--format", "v2s2"]);
    ground.built("zstd", &["--compression", "zstd"]);
    for (repository, tag_of_base, kind) in [
        ("ground", "index", "tar+gzip"),
        ("docker", "1", "tar+gzip"),
        ("zstd", "1", "tar+zstd"),
    ] {
        let base = format!("{repository}:{tag_of_base}");
        let place = Place::with_own_cache(&app(&ground, &base, "env = { A = \"1\" }"));
        let first = place.builds(&[]);
        let layers = ground.layers(repository, "1");
        let count = layers.len();
        assert_eq!(
            first["work"]["base_layers_fetched"], count,
            "{base}: {first}"
        );
        assert!(
            first["pushed_bytes"].as_u64() < Some(20_000),
            "{base}: {first}"
        );
        let own = ground.layers("app", &tag(&first));
        assert_eq!(own.len(), count, "{base}: the user is there already");
        for ((media_type, digest), (_, of_base)) in own.iter().zip(&layers) {
            assert_eq!(digest, of_base, "{base}");
            assert_eq!(
                *media_type,
                format!("application/vnd.oci.image.layer.v1.{kind}")
            );
        }

        // What is known of the base is enough from then on.
        fs_err::remove_dir_all(place.cache().join("blobs")).expect("blobs");
        place.write(
            "imagespec.toml",
            &app(&ground, &base, "env = { A = \"2\" }"),
        );
        let second = place.builds(&[]);
        assert_eq!(second["built"], true);
        for counter in WORK {
            assert_eq!(second["work"][counter], 0, "{base}: {counter}: {second}");
        }
        assert!(
            second["pushed_bytes"].as_u64() < Some(20_000),
            "{base}: {second}"
        );
    }
}

#[test]
fn a_moved_tag_is_followed_and_another_registry_gets_the_layers() {
    let Some(ground) = Ground::new() else {
        return;
    };
    ground.reformed("moving:1", &[]);
    let place = Place::new(&app(&ground, "moving:1", "env = { A = \"moved\" }"));
    let first = place.builds(&[]);
    ground.changed("moving:1", &[("srv/moved", "yes\n")], &[]);
    assert_eq!(place.builds(&[])["built"], false);
    let second = place.builds(&["--pull"]);
    assert_eq!(place.builds(&["--pull"])["built"], false);
    let count = |built: &Value| {
        ground
            .layers("app", built["digest"].as_str().expect("a digest"))
            .len()
    };
    assert_eq!(count(&second), count(&first) + 1);
    assert_eq!(second["work"]["base_layers_fetched"], 1, "{second}");

    let other = crate::registry::Served::new(&[]);
    let sent = place.builds(&["--registry", &other.address]);
    assert_eq!(sent["digest"], second["digest"]);
    assert!(
        sent["pushed_bytes"].as_u64() > sent["size"].as_u64(),
        "{sent}"
    );
}

/// A base with an interpreter that has to be run, nobody as its user, and the id of ours taken.
fn odd(ground: &Ground) {
    let python = "#!/bin/sh\nexec /usr/bin/python3.11 \"$@\"\n";
    let users = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/sh\nworker:x:1000:1000::/srv:/bin/sh";
    let files = [
        ("usr/local/bin/python3*", python),
        ("opt/.wh.venv", ""),
        ("home/.wh..wh..opq", ""),
        ("etc/passwd", users),
        ("etc/group", "root:x:0:\nworker:x:1000:\n"),
        ("etc/.wh.shadow", ""),
    ];
    let settings = [
        "--config.user=nobody",
        "--config.env=PATH=/usr/local/bin:/usr/bin:/bin",
        "--config.env=KEPT=a b",
        "--config.label=team=ml",
        "--config.entrypoint=/usr/bin/env",
        "--config.cmd=true",
        "--config.workingdir=/srv",
    ];
    ground.changed("odd:1", &files, &settings);
}

#[test]
fn packages_and_commands_go_into_whatever_a_base_is() {
    let Some(ground) = Ground::new() else {
        return;
    };
    odd(&ground);
    let declaration = "packages = [\"tabulate\"]\napt_packages = [\"libedit2\"]\npython_version = \"3.11\"\n\
         commands = [\"id -un > /root/who\", \"python -c 'import tabulate'\", \"dpkg-query -W libedit2\"]\n\
         [images.child]\nbase_image = { image = \"app\" }\npackages = [\"idna\"]\nentrypoint = [\"/bin/sh\"]\n";
    let place = Place::new(&app(&ground, "odd:1", declaration));
    let told = place.says(&["build", "--json", "--progress", "quiet", "--no-bytecode"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let runtime = ground.runtime("app", &tag(&told["images"][0]));
    assert_eq!(runtime["User"], "flytekit");
    assert_eq!(runtime["WorkingDir"], "/root");
    assert_eq!(runtime["Entrypoint"], serde_json::json!(["/usr/bin/env"]));
    assert_eq!(runtime["Cmd"], serde_json::json!(["true"]));
    assert_eq!(runtime["Labels"]["team"], "ml");
    let env = runtime["Env"].as_array().expect("an environment");
    assert!(env.contains(&"KEPT=a b".into()), "{env:?}");
    // Another entrypoint has other arguments.
    let store = [
        "build",
        "child",
        "--registry",
        "",
        "--output",
        "store",
        "--no-bytecode",
    ];
    place.says(&store);
    let look = "import tabulate, idna, sys, os, pwd; print(open('/root/who').read().strip(), os.getuid(), \
         pwd.getpwnam('flytekit').pw_uid, pwd.getpwuid(1000).pw_name, os.path.isdir('/home/flytekit'), \
         sys.prefix, sys.base_prefix, os.path.exists('/etc/shadow'))";
    let said = place.says(&exec("child", &["python", "-c", look]));
    assert_eq!(said, "root 1000 1000 worker True /opt/venv /usr False");
    let config = "cat /opt/venv/pyvenv.cfg";
    let said = place.says(&exec("child", &["/bin/sh", "-c", config]));
    assert!(
        said.contains("home = /usr/bin\ninclude-system-site-packages = true"),
        "{said}"
    );
}

/// What a base may want done.
const TRIGGERS: [&str; 15] = [
    "USER root",
    "ARG NAME=worker",
    "ENV GREETING=\"hello $NAME\" PATH=/srv/bin:$PATH",
    "WORKDIR /srv/bin",
    "RUN printf '#!/bin/sh\\necho %s\\n' \"$GREETING, $NAME in $PWD\" > greet && chmod 755 greet",
    "SHELL [\"/bin/bash\", \"-ec\"]",
    "RUN [[ -x greet ]] && useradd --no-create-home \"$NAME\"",
    "RUN [\"rm\", \"/usr/bin/python3\"]",
    "LABEL greeted=\"by $NAME\"",
    "CMD greet",
    "USER worker:games",
    "WORKDIR /srv/worker/of it",
    "RUN id -un > who; touch mine; mkdir -p deep/er; env | grep ^HOME= > home",
    "USER root",
    "WORKDIR /srv/empty",
];

#[test]
fn what_a_base_wants_done_is_done_first() {
    let Some(ground) = Ground::new() else {
        return;
    };
    ground.onbuild("trigger:1", &TRIGGERS);
    let declaration = "commands = [\"id -u worker > /root/who\"]\npackages = [\"tabulate\"]\n\
         [images.child]\nbase_image = { image = \"app\" }\n";
    let place = Place::new(&app(&ground, "trigger:1", declaration));
    let built = place.builds(&["app"]);
    let runtime = ground.runtime("app", &tag(&built));
    assert_eq!(runtime["OnBuild"], Value::Null, "{runtime}");
    assert_eq!(runtime["Labels"]["greeted"], "by worker");
    assert_eq!(
        runtime["Cmd"],
        serde_json::json!(["/bin/bash", "-ec", "greet"])
    );
    assert_eq!(place.builds(&["app"])["built"], false);
    place.says(&["build", "child", "--registry", "", "--output", "store"]);
    let look = "greet; cat /root/who; python -c 'import sys; print(sys.base_prefix)'; cd /srv/empty && pwd; ls /usr/bin/python3";
    let asked = exec("child", &["sh", "-c", look]);
    let said = place.run(&asked);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(
        said,
        "hello worker, worker in /srv/bin\n1001\n/usr\n/srv/empty\n"
    );

    for (trigger, problem) in [
        ("COPY . /app", "takes files of a Docker context"),
        (
            "RUN --mount=type=cache,target=/x true",
            "options are not known",
        ),
        ("RUN true", "it has no user `strange`"),
        ("RUN exit 3", "ended with code 3"),
    ] {
        let user = if trigger == "RUN true" {
            "USER strange"
        } else {
            "USER root"
        };
        ground.onbuild("refused:1", &[user, trigger]);
        let place = Place::new(&app(&ground, "refused:1", ""));
        let (_, told) = place.fails(&["build"]);
        assert!(told.contains(problem), "{trigger}: {told}");
        assert!(told.contains("base_image"), "{trigger}: {told}");
    }
}

#[test]
fn a_user_of_other_ids_has_what_is_added() {
    let Some(ground) = Ground::new() else {
        return;
    };
    // As where flytekit's own builder made it, over a base that has a user 1000 already.
    let users = "root:x:0:0:root:/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/bash\n\
         flytekit:x:1001:1002::/home/flytekit:/bin/bash\n";
    let groups = "root:x:0:\nubuntu:x:1000:\nflytekit:x:1002:\n";
    let files = [
        ("etc/passwd", users),
        ("etc/group", groups),
        ("opt/.wh.venv", ""),
    ];
    ground.changed("second:1", &files, &[]);
    let declaration = "packages = [\"tabulate\"]\ncopy = [\"notes.txt\"]\ncommands = [\"touch /root/made\"]\n\
         [images.child]\nbase_image = { image = \"app\" }\npackages = [\"idna\"]\n";
    let place = Place::new(&app(&ground, "second:1", declaration));
    place.write("notes.txt", "kept\n");
    place.builds(&["app", "--builder", "native"]);
    let look = "import idna, os, pathlib, tabulate; own = lambda *paths: sorted({(os.stat(path).st_uid, os.stat(path).st_gid) for path in paths}); \
         cached = pathlib.Path(tabulate.__file__).parent / '__pycache__'; \
         print(os.getuid(), os.getgid(), own('/opt/venv', '/opt/venv/bin', '/opt/venv/pyvenv.cfg', tabulate.__file__, idna.__file__, \
         '/root', '/root/notes.txt', '/home/flytekit', *cached.glob('*.pyc')), own('/root/made'), len(list(cached.glob('*.pyc'))) > 0)";
    place.says(&["build", "child", "--registry", "", "--output", "store"]);
    let asked = exec("child", &["python", "-c", look]);
    assert_eq!(place.says(&asked), "1001 1002 [(1001, 1002)] [(0, 0)] True");
}

#[test]
fn what_a_base_cannot_give_is_refused_by_its_field() {
    let Some(ground) = Ground::new() else {
        return;
    };
    let without = [
        ("usr/bin/.wh.python3", ""),
        ("usr/bin/.wh.python3.11", ""),
        ("opt/.wh..wh..opq", ""),
        ("var/lib/.wh.dpkg", ""),
        ("usr/bin/.wh.bash", ""),
        ("usr/bin/.wh.sh", ""),
    ];
    ground.changed("bare:1", &without, &[]);
    let release = "ID=ubuntu\nVERSION_CODENAME=noble\n";
    ground.changed(
        "ubuntu:1",
        &[("etc/.wh.os-release", ""), ("usr/lib/os-release", release)],
        &[],
    );
    let other = "flytekit:x:0:0::/home/flytekit:/bin/sh\n";
    ground.changed("other:1", &[("etc/passwd", other)], &[]);
    for (base, more, said) in [
        ("gone:1", "", "cannot start from the `base_image`"),
        (
            "ground:1",
            "python_version = \"3.12\"",
            "has no Python of the `python_version` `3.12`: 3.11 at `/usr/bin/python3.11`",
        ),
        (
            "ground:1",
            "python_exec = \"/opt/python\"",
            "the base image has no program at the path of `python_exec`: `/opt/python`",
        ),
        (
            "bare:1",
            "packages = [\"idna\"]",
            "the base image has no Python, for",
        ),
        (
            "bare:1",
            "apt_packages = [\"libedit2\"]",
            "`apt_packages` needs a base of Debian or Ubuntu",
        ),
        (
            "bare:1",
            "commands = [\"true\"]",
            "the base image has neither `/bin/bash` nor `/bin/sh`, which `commands` needs",
        ),
        (
            "ubuntu:1",
            "apt_packages = [\"libedit2\"]",
            "`debian_mirror`",
        ),
        (
            "other:1",
            "",
            "the base image has a user `flytekit` of ids that nobody can have: `0:0`",
        ),
    ] {
        let place = Place::new(&app(&ground, base, more));
        let (code, told) = place.fails(&["build", "--no-bytecode", "--progress", "plain"]);
        assert_eq!(code, Some(2), "{base} {more}: {told}");
        assert!(told.contains(said), "{base} {more}: {told}");
    }
    ground.indexed("ground", "1");
    for base in ["ground:1", "ground:index"] {
        let place = Place::new(&app(&ground, base, "platform = \"linux/arm64\""));
        let (code, told) = place.fails(&["build"]);
        assert_eq!(code, Some(2), "{base}: {told}");
        assert!(told.contains("platform"), "{base}: {told}");
    }
    // What no step needs is not missed.
    let place = Place::new(&app(&ground, "bare:1", ""));
    let told = place.run(&["build", "--progress", "plain"]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("has no `/bin/bash`"), "{told}");
}

/// Builds an image by an engine and by ourselves, and compares what both say of themselves. Returns what a Python in
/// them says.
fn compare(place: &Place, engine: &Engine, look: &str) -> String {
    let mut all = Vec::new();
    for builder in ["default", "native"] {
        let output = ["app", "--force", "--builder", builder, "--output", "docker"];
        let network = ["--option", "network=host"];
        let network = &network[..if builder == "default" { 2 } else { 0 }];
        let built = place.builds(&[&output[..], network].concat());
        assert_eq!(built["builder"], builder);
        let name = built["reference"].as_str().expect("a name");
        let said = engine.python(name, look);
        let parts = "{{json .Config.User}} {{json .Config.WorkingDir}} {{json .Config.Entrypoint}} \
             {{json .Config.Cmd}} {{json .Config.Labels}}";
        let env = engine.inspect(name, "{{range .Config.Env}}{{println .}}{{end}}");
        let mut env: Vec<_> = env.lines().map(str::to_owned).collect();
        env.sort();
        all.push((engine.inspect(name, parts), env, said));
    }
    assert_eq!(all[0], all[1]);
    all.pop().expect("an image").2
}

#[test]
fn an_engine_makes_of_a_base_what_native_makes_of_it() {
    let Some(ground) = Ground::new() else {
        return;
    };
    let Some(engine) = Engine::start(Release::Current) else {
        return;
    };
    odd(&ground);
    let mut place = Place::new(&app(
        &ground,
        "odd:1",
        "packages = [\"tabulate\"]\napt_packages = [\"libedit2\"]\npython_version = \"3.11\"\nsource_root = \".\"\n\
         commands = [\"id -un > /root/who\", \"python -c 'import tabulate'\"]\nenv = { LD_LIBRARY_PATH = \"/x\" }\n",
    ));
    place.set("DOCKER_HOST", &engine.address());
    let look = "import tabulate, sys, os, pwd; print(open('/root/who').read().strip(), os.getuid(), \
         pwd.getpwnam('flytekit').pw_uid, pwd.getpwuid(1000).pw_name, os.path.isdir('/home/flytekit'), \
         sys.prefix, sys.base_prefix, os.path.exists('/etc/shadow'), open('/opt/venv/pyvenv.cfg').read(), \
         sorted(os.listdir('/opt/venv/bin')), os.stat('/root').st_uid, sorted(os.listdir('/etc/apt/sources.list.d')))";
    compare(&place, &engine, look);

    ground.onbuild("trigger:1", &TRIGGERS);
    let mut place = Place::new(&app(
        &ground,
        "trigger:1",
        "packages = [\"tabulate\"]\ncommands = [\"id -u worker > /root/who\"]\n",
    ));
    place.set("DOCKER_HOST", &engine.address());
    let look = "import os, subprocess, sys, tabulate; print(subprocess.getoutput('greet; cat /root/who'), sys.base_prefix, \
         os.path.lexists('/usr/bin/python3'), oct(os.stat('/srv/bin/greet').st_mode), os.stat('/srv/bin').st_uid, os.listdir('/srv/empty'), \
         [(root, open(root + '/who').read() if 'who' in files else '', open(root + '/home').read() if 'home' in files else '', \
         [(name, os.stat(root + '/' + name).st_uid, os.stat(root + '/' + name).st_gid) for name in ['.', *sorted(files)]]) \
         for root, _, files in os.walk('/srv/worker')])";
    let said = compare(&place, &engine, look);
    assert!(
        said.starts_with("hello worker, worker in /srv/bin\n1001 /usr False"),
        "{said}"
    );

    ground.changed(
        "other:1",
        &[(
            "etc/passwd",
            "flytekit:x:1001:1001::/home/flytekit:/bin/sh\n",
        )],
        &[],
    );
    for (base, more, code, said) in [
        ("gone:1", "", 1, "gone:1"),
        (
            "ground:1",
            "python_version = \"3.12\"",
            2,
            "the base has no Python 3.12 but 3.11",
        ),
        (
            "odd:1",
            "python_exec = \"/opt/python\"",
            2,
            "no program at that path: `/opt/python`",
        ),
        (
            "other:1",
            "",
            2,
            "it has a user `flytekit` of other ids than 1000:1000",
        ),
    ] {
        let mut place = Place::new(&app(&ground, base, more));
        place.set("DOCKER_HOST", &engine.address());
        let (found, told) =
            place.fails(&["build", "--builder", "default", "--option", "network=host"]);
        assert_eq!(found, Some(code), "{base} {more}: {told}");
        assert!(told.contains(said), "{base} {more}: {told}");
    }
}

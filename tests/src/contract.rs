//! The contract of every image, as a corpus of declarations and a program that runs in what was built of them: two
//! builders that keep it get the same answers.

/// A declaration, and the files beside it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// The fields of `[images.app]` in `imagespec.toml`.
    pub fields: &'static str,
    /// Files by their path from the folder of `imagespec.toml`, with their content. One whose path ends in `*` is
    /// executable, one whose content begins with `-> ` a symbolic link.
    pub files: &'static [(&'static str, &'static str)],
}

const SOURCES: &[(&str, &str)] = &[
    ("src/main.py", "print('main')\n"),
    ("src/run me.sh*", "#!/bin/sh\necho run\n"),
    ("src/pkg/__init__.py", ""),
    ("src/pkg/data/ünïcode $x.txt", "ü\n"),
    ("src/latest.py", "-> main.py"),
    ("src/__pycache__/main.cpython-311.pyc", "stale"),
    ("src/.gitignore", "ignored.txt\n"),
    ("src/ignored.txt", "ignored\n"),
    ("src/.dockerignore", "*.log\n"),
    ("src/a.log", "log\n"),
    ("data/a b.csv", "1,2\n"),
    ("data/deep/er/c.csv", "3\n"),
];

const POETRY: &str = "[[package]]\nname = \"six\"\nversion = \"1.16.0\"\ndescription = \"\"\noptional = false\n\
     python-versions = \"*\"\ngroups = [\"main\"]\nfiles = [\n    {file = \"six-1.16.0-py2.py3-none-any.whl\", \
     hash = \"sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254\"},\n]\n\n\
     [metadata]\nlock-version = \"2.1\"\npython-versions = \">=3.9\"\ncontent-hash = \"0\"\n";

/// The declarations: every field alone, and combinations that people write.
pub const CORPUS: &[Case] = &[
    Case {
        name: "nothing",
        fields: "",
        files: &[],
    },
    Case {
        name: "packages with extras, markers and scripts",
        fields: "packages = [\"requests[socks]==2.32.3\", \"tomli==2.0.1; python_version < '3.11'\", \"tabulate==0.9.0\"]",
        files: &[],
    },
    Case {
        name: "packages with native code",
        fields: "packages = [\"numpy==2.2.6\"]",
        files: &[],
    },
    Case {
        name: "a requirements file with files of its own",
        fields: "requirements = \"r/requirements.txt\"\npackages = [\"idna==3.10\"]",
        files: &[
            ("r/requirements.txt", "-r more.txt\n-c bounds.txt\n"),
            ("r/more.txt", "six\n"),
            ("r/bounds.txt", "six==1.16.0\n"),
        ],
    },
    Case {
        name: "a project",
        fields: "requirements = \"p/pyproject.toml\"",
        files: &[(
            "p/pyproject.toml",
            "[project]\nname = \"x\"\nversion = \"1\"\nrequires-python = \">=3.9\"\ndependencies = [\"six==1.16.0\"]\n",
        )],
    },
    Case {
        name: "a lock of Poetry's",
        fields: "requirements = \"p/poetry.lock\"",
        files: &[
            ("p/poetry.lock", POETRY),
            (
                "p/pyproject.toml",
                "[tool.poetry]\nname = \"x\"\nversion = \"1\"\ndescription = \"\"\nauthors = []\n\
                 [tool.poetry.dependencies]\npython = \">=3.9\"\nsix = \"*\"\n",
            ),
        ],
    },
    Case {
        name: "options of the installer",
        fields: "packages = [\"six==1.16.0\", \"tabulate==0.9.0\"]\npip_extra_args = \"--no-deps --no-cache-dir\"",
        files: &[],
    },
    Case {
        name: "debian packages",
        fields: "apt_packages = [\"tree\", \"libedit2\"]",
        files: &[],
    },
    Case {
        name: "commands with quotes, lines and pipes",
        fields: "commands = [\"echo \\\"$HOME\\\" '$HOME' > /root/home.txt\", \"cd /tmp\\npwd | tr a-z A-Z > /root/pwd.txt\", \"test \\\"$PWD\\\" = /root\", \"id -u > /root/who.txt; touch /opt/there; chmod 4711 /opt/there\"]",
        files: &[],
    },
    Case {
        name: "commands with the installer",
        fields: "commands = [\"pip --version && pip install tabulate==0.9.0\", \"uv pip install six==1.16.0\", \"python -c 'import tabulate, six'\"]",
        files: &[],
    },
    Case {
        name: "an environment of odd values",
        fields: "env = { A = \"a \\\"b\\\" $HOME 'c' \\\\ d\", EMPTY = \"\", UNICODE = \"ü €\", EQUALS = \"a=b=c\", HASH = \"# no comment\", SPACES = \"  two  \", BRACES = \"${PATH:-x}\" }",
        files: &[],
    },
    Case {
        name: "an environment over the contract's own",
        fields: "env = { PATH = \"/opt/venv/bin:/usr/bin:/bin\", PYTHONPATH = \"/root/lib\", LD_LIBRARY_PATH = \"/x\" }",
        files: &[],
    },
    Case {
        name: "sources with rules",
        fields: "source_root = \"src\"",
        files: SOURCES,
    },
    Case {
        name: "copied files and folders",
        fields: "copy = [\"data\", \"src/main.py\", \"src/run me.sh\"]",
        files: SOURCES,
    },
    Case {
        name: "no entrypoint",
        fields: "entrypoint = []",
        files: &[],
    },
    Case {
        name: "an entrypoint of words with blanks",
        fields: "entrypoint = [\"/bin/sh\", \"-c\", \"echo \\\"a b\\\" $0\"]",
        files: &[],
    },
    Case {
        name: "an interpreter of the base",
        fields: "python_exec = \"/usr/bin/python3\"\npackages = [\"six==1.16.0\"]",
        files: &[],
    },
    Case {
        name: "another version of python",
        fields: "python_version = \"3.13\"\npackages = [\"six==1.16.0\"]\napt_packages = [\"tree\"]",
        files: &[],
    },
    Case {
        name: "packages at run time",
        fields: "runtime_packages = [\"six==1.16.0\", \"a b\"]",
        files: &[],
    },
    Case {
        name: "everything",
        fields: "packages = [\"six==1.16.0\"]\napt_packages = [\"tree\"]\nsource_root = \"src\"\ncopy = [\"data\"]\n\
                 commands = [\"tree /root > /tmp/tree.txt; rm /tmp/tree.txt\", \"rm '/root/run me.sh'\"]\n\
                 entrypoint = [\"python\"]\nenv = { A = \"b c\" }\nplatform = \"linux/amd64\"",
        files: SOURCES,
    },
];

/// A program for the image's Python that prints what the image is, as JSON: to be run as its user, without an
/// entrypoint. What may differ between builders that keep the contract is left out: times, the compiled form of modules
/// (only whether there is one is told), the text of console scripts (they are run), and what an installer notes of itself.
pub const QUESTIONS: &str = r#"
import hashlib, importlib.metadata, json, os, pwd, stat, subprocess, sys
ROOTS = ["/root", "/opt", "/home"]
OWN = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
def told(path):
    status = os.lstat(path)
    what = [oct(status.st_mode), status.st_uid, status.st_gid]
    if stat.S_ISLNK(status.st_mode):
        what.append(os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        try:
            with open(path, "rb") as file:
                # The text of scripts is the installer's.
                if os.path.dirname(path) != "/opt/venv/bin":
                    what.append(hashlib.sha256(file.read()).hexdigest()[:16])
        except PermissionError:
            what.append("unreadable")
    return what
files = {}
for root in ROOTS:
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(folder, name)
            if name in OWN and ".dist-info" in folder:
                continue
            if "__pycache__" in path:
                files[path.replace(".opt-", ".")] = "compiled"
                continue
            files[path] = told(path)
def lines(*command):
    return sorted(subprocess.run(command, capture_output=True, text=True).stdout.splitlines())
modules = ["six", "tabulate", "numpy", "requests"]
env = {name: value for name, value in os.environ.items() if name not in ("HOSTNAME", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "TERM", "container")}
print(json.dumps({
    "user": [os.getuid(), os.getgid(), sorted(os.getgroups()), list(pwd.getpwuid(os.getuid()))],
    "where": os.getcwd(),
    "env": env,
    "python": [sys.version, sys.executable, sys.prefix, sys.base_prefix, sys.path],
    "distributions": sorted(d.metadata["Name"] + " " + d.version for d in importlib.metadata.distributions()),
    "scripts": sorted(f"{e.name}={e.value}" for e in importlib.metadata.entry_points(group="console_scripts")),
    "files": files,
    "tops": sorted(name for name in os.listdir("/") if name != ".dockerenv"),
    "temporary": sorted(os.listdir("/tmp")),
    "run": sorted(name for name in os.listdir("/run") if name != ".containerenv"),
    "authorities": os.path.getsize("/etc/ssl/certs/ca-certificates.crt") > 1000,
    "debian": lines("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n"),
    "audit": lines("dpkg", "--audit"),
    "users": lines("cat", "/etc/passwd", "/etc/group"),
    "lent": [path for path in ["/dev/imagespec", "/run/imagespec", "/root/.cache", "/home/flytekit/.cache",
             "/opt/venv/.lock", "/root/.git"] if os.path.exists(path)],
    "tools": [path for path in ["/usr/local/bin/uv", "/opt/venv/bin/uv", "/opt/venv/bin/pip", "/usr/bin/uv"]
              if os.path.exists(path)],
    "lists": sorted(os.listdir("/var/lib/apt/lists")),
    "sources": sorted(os.listdir("/etc/apt/sources.list.d")) + sorted(os.listdir("/etc/apt/apt.conf.d")),
    "runs": [subprocess.run(["/opt/venv/bin/" + name, "--help"], capture_output=True).returncode
             for name in ["tabulate", "f2py", "numpy-config", "normalizer"] if os.path.exists("/opt/venv/bin/" + name)],
}))
"#;

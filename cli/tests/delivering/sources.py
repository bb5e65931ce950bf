"""Source distributions and repositories: prints its port, serves FOLDER; `/guarded` asks for LOGIN."""

import base64
import hashlib
import http.server
import io
import pathlib
import subprocess
import sys
import tarfile

folder, login = pathlib.Path(sys.argv[1]), sys.argv[2]
expected = "Basic " + base64.b64encode(login.encode()).decode()

# What a build may try: it writes to its home and to a folder of the machine, and tells what it can.
CURIOUS = f"""
import hashlib, os, pathlib, sys
from setuptools import setup
word = pathlib.Path("/run/secrets/word").read_text()
print("the word is", word)
for there in [pathlib.Path.home(), pathlib.Path({str(folder)!r})]:
    there.mkdir(parents=True, exist_ok=True)
    (there / "touched").write_text("x")
told = f"PYTHON = {{sys.version_info[:2]!r}}\\nWORD = {{hashlib.sha256(word.encode()).hexdigest()!r}}\\n"
pathlib.Path("only_source.py").write_text(told)
setup(name="only-source", version="1.0", py_modules=["only_source"], install_requires=["six"])
"""
PLAIN = """
import os
from setuptools import setup
assert "SSH_AUTH_SOCK" not in os.environ
setup(name="{name}", version="{version}", py_modules=["{module}"])
"""
COMPILED = """
from setuptools import Extension, setup
setup(name="compiled-source", version="1.0", ext_modules=[Extension("compiled", ["compiled.c"])])
"""
BROKEN = """
print("first words")
raise SystemExit("no good: boom")
"""


def sdist(name, files, where="files"):
    path = folder / where / f"{name}-1.0.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    files["PKG-INFO"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with tarfile.open(path, "w:gz") as archive:
        for inside, text in files.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{inside}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    page = folder / "simple" / name / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f'<a href="/{where}/{path.name}#sha256={digest}">{path.name}</a>')


def plain(name, version):
    module = name.replace("-", "_")
    return {
        "setup.py": PLAIN.format(name=name, version=version, module=module),
        f"{module}.py": f"VERSION = {version!r}\n",
    }


def git(at, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=n@host.example", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *who, *arguments], cwd=at, check=True, stdout=subprocess.DEVNULL)


def commit(at, files):
    at.mkdir(parents=True, exist_ok=True)
    if not (at / ".git").exists():
        git(at, "init", "--quiet", "--initial-branch=main")
    for inside, text in files.items():
        path = at / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "--message=more")


def repositories():
    """`work/one`, whose project is in a folder, and `guarded/two`, which has a module of a submodule."""
    work = folder / "work"
    inner = plain("one-source", "1.0")
    commit(work / "one", {f"inner/{name}": text for name, text in inner.items()})
    commit(work / "sub", {"part.py": "PART = 'of a submodule'\n"})
    setup = 'from setuptools import setup\nsetup(name="two-source", version="2.0", packages=["sub"])\n'
    commit(work / "two", {"setup.py": setup})
    git(work / "two", "submodule", "--quiet", "add", "--name", "sub", str(work / "sub"), "sub")
    git(work / "two", "config", "--file=.gitmodules", "submodule.sub.url", "../sub.git")
    git(work / "two", "commit", "--quiet", "--all", "--message=submodule")
    for name in ["sub", "two"]:
        bare = folder / "guarded" / f"{name}.git"
        git(work, "clone", "--quiet", "--bare", str(work / name), str(bare))
        git(bare, "update-server-info")


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if not self.path.startswith("/guarded") or self.headers.get("Authorization") == expected:
            return super().do_GET()
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="repositories"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if "git" in sys.argv[3:]:
    repositories()
sdist("only-source", {"setup.py": CURIOUS}, "guarded/files")
sdist("plain-source", plain("plain-source", "1.0"))
sdist("broken-source", {"setup.py": BROKEN})
sdist("compiled-source", {"setup.py": COMPILED, "compiled.c": "int x;\n"})
server = http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), lambda *arguments: Handler(*arguments, directory=str(folder))
)
print(server.server_port, flush=True)
server.serve_forever()

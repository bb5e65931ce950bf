"""Makes Conda channels, serves them, and installs from them with an installer of somebody else.

`make SOURCE FOLDER`: makes channels of the files of a Python distribution and of small packages in FOLDER.

`serve FOLDER LOG TOKEN`: serves them, and what is in `private` only to who has the token. Prints the port. What is
asked for is written to LOG.

`install FOLDER PREFIX SPEC…`: installs packages of those channels for PREFIX, and prints what is there: for each path
its kind and the digest of its content.

`look PREFIX`: prints the same of what is at PREFIX.
"""

import asyncio
import functools
import gzip
import hashlib
import http.server
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

PLACEHOLDER = ("/home/builder/work/" + "placehold_" * 30)[:255]
MACHINE = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[platform.machine()]
FOLDER = 1 << 31


class Link(str):
    """The target of a symbolic link."""


def package(channel, name, version, files, depends=(), noarch=None, build="0", commands=(), kind=".conda"):
    """Adds a package of the given files to a channel: of each its content, and whether it may be executed."""
    from conda_package_handling import api

    subdir = "noarch" if noarch else MACHINE
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        paths = []
        for path, (content, executable) in sorted(files.items()):
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            entry = {"_path": path, "path_type": "hardlink"}
            if isinstance(content, Link):
                target.symlink_to(content)
                entry["path_type"] = "softlink"
            else:
                target.write_bytes(content)
                target.chmod(0o775 if executable else 0o664)
                if PLACEHOLDER.encode() in content:
                    entry["prefix_placeholder"] = PLACEHOLDER
                    entry["file_mode"] = "binary" if b"\0" in content else "text"
                entry["sha256"] = hashlib.sha256(content).hexdigest()
                entry["size_in_bytes"] = len(content)
            paths.append(entry)
        info = work / "info"
        info.mkdir()
        index = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "depends": list(depends),
            "subdir": subdir,
            "timestamp": 1700000000000,
            "license": "MIT",
        }
        if noarch:
            index["noarch"] = noarch
        info.joinpath("index.json").write_text(json.dumps(index))
        if kind == ".conda":
            info.joinpath("paths.json").write_text(json.dumps({"paths": paths, "paths_version": 1}))
        else:
            # As packages were before there was one file that says it all.
            of = lambda entry: f"{entry['prefix_placeholder']} {entry['file_mode']} {entry['_path']}\n"
            prefixes = [of(entry) for entry in paths if "prefix_placeholder" in entry]
            info.joinpath("files").write_text("".join(entry["_path"] + "\n" for entry in paths))
            if prefixes:
                info.joinpath("has_prefix").write_text("".join(prefixes))
        if commands:
            link = {"noarch": {"type": "python", "entry_points": list(commands)}, "package_metadata_version": 1}
            info.joinpath("link.json").write_text(json.dumps(link))
        listed = [str(path.relative_to(work)) for path in work.rglob("*") if path.is_symlink() or path.is_file()]
        out = channel / subdir
        out.mkdir(parents=True, exist_ok=True)
        fast = {"compression_tuple": (".tar.zst", "zstd", "zstd:compression-level=3")} if kind == ".conda" else {}
        api.create(str(work), sorted(listed), f"{name}-{version}-{build}{kind}", str(out), **fast)


def metadata(name, version, *lines):
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    return (text + "\n\nA text.\n").encode()


def python(source):
    """The files of a Python, some of which name the folder that they are built in."""
    files = {}
    left_out = ("bin/pip", "bin/idle", "lib/libtcl", "lib/itcl", "lib/thread", "lib/tcl", "lib/tk")
    left_out += tuple(f"lib/python3.14/{name}" for name in ("idlelib", "test", "tkinter", "turtledemo", "config-"))
    for entry in json.loads((source / "files.json").read_text())["files"]:
        name, path = entry["name"], source / entry["name"]
        if name.startswith(left_out):
            continue
        if "symlink" in entry:
            files[name] = (Link(entry["symlink"]), False)
        elif not entry["perm"] & FOLDER:
            packed = path.with_name(path.name + ".gz")
            content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
            if name.startswith("bin/") and content.startswith(b"#!"):
                line = f"#!{PLACEHOLDER}/bin/python3.14\n".encode()
                content = line + content.split(b"\n", 1)[1]
            files[name] = (content, bool(entry["perm"] & 0o111))
    files.setdefault("bin/python", (Link("python3.14"), False))
    return files


def compiled(version):
    """A program that knows where it was built to be."""
    text = f"""
    #include <stdio.h>
    const char *share = "{PLACEHOLDER}/share/hello:{PLACEHOLDER}/etc";
    int main(void) {{ printf("hello {version} from %s\\n", share); return 0; }}
    """
    with tempfile.TemporaryDirectory() as work:
        program = pathlib.Path(work) / "hello"
        subprocess.run(["cc", "-x", "c", "-", "-o", program], input=text.encode(), check=True)
        return program.read_bytes()


def make(source, folder):
    from rattler.index import index_fs

    forge, acme, private = folder / "conda-forge", folder / "acme", folder / "private"
    package(forge, "python", "3.14.6", python(source))
    for version in ["1.0", "2.0"]:
        files = {
            "bin/hello": (compiled(version), True),
            "share/hello/where.txt": (f"{PLACEHOLDER}/share/hello\n".encode(), False),
            "share/hello/latest.txt": (Link("where.txt"), False),
        }
        package(forge, "hello", version, files, ["__glibc >=2.17"])
    files = {
        "site-packages/six.py": (b"__version__ = '1.16.0'\nPY3 = True\nconda = True\n", False),
        "site-packages/six-1.16.0.dist-info/METADATA": (metadata("six", "1.16.0"), False),
    }
    package(forge, "six", "1.16.0", files, ["python"], "python")
    files = {
        "site-packages/greeting.py": (b"import six\ndef main():\n    print('greetings', six.conda)\n", False),
        "site-packages/acme_greeting-1.5.dist-info/METADATA": (
            metadata("acme-greeting", "1.5", "Requires-Dist: six"),
            False,
        ),
        "python-scripts/greeted": (f"#!{PLACEHOLDER}/bin/python\nimport greeting\ngreeting.main()\n".encode(), True),
    }
    commands = ["greet = greeting:main"]
    package(forge, "greeting", "1.5", files, ["python >=3.10", "hello <2", "six"], "python", commands=commands, kind=".tar.bz2")
    package(forge, "impossible", "1.0", {"share/a": (b"a", False)}, ["hello >=3"], "generic")
    package(forge, "fragile", "1.0", {"share/fragile": (b"f", False)}, noarch="generic")
    package(forge, "gpu", "1.0", {"share/gpu": (b"g", False)}, ["__cuda >=12"], "generic")
    for version in ("12.4", "12.6"):
        package(forge, "cuda-version", version, {f"share/cuda/{version}": (b"v", False)}, noarch="generic")
        files = {"lib/libcudart.so.12": (version.encode(), False)}
        package(forge, "cuda-runtime", f"{version}.1", files, [f"cuda-version {version}.*"])
    package(forge, "cudatoolkit", "11.8.0", {"lib/libcudart.so.11": (b"11.8", False)})
    package(forge, "cudnn", "9.1.0.70", {"lib/libcudnn.so.9": (b"9.1", False)})
    # The channel of somebody, which is asked second, and has one list.
    script = b'echo "$PKG_NAME $PKG_VERSION was here" > "$PREFIX/share/scripted.txt"\nhello >> "$PREFIX/share/scripted.txt"\n'
    files = {"bin/.scripted-post-link.sh": (script, True), "share/scripted/a": (b"a", False)}
    package(acme, "scripted", "0.1", files, ["hello"], "generic")
    package(acme, "hello", "9.0", {"bin/hello": (b"#!/bin/sh\necho not this\n", True)})
    package(private, "secretive", "1.0", {"share/secretive": (b"s", False)}, noarch="generic")
    asyncio.run(index_fs(private, write_zst=True, write_shards=False))
    asyncio.run(index_fs(forge, write_zst=True, write_shards=True))
    asyncio.run(index_fs(acme, write_zst=False, write_shards=False))


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        with_token = self.path.startswith(f"/t/{self.token}/")
        if with_token:
            self.path = self.path.removeprefix(f"/t/{self.token}")
        with open(self.log, "a") as log:
            log.write(self.path + "\n")
        if self.path.startswith("/private/") and not with_token:
            return self.send_error(403)
        super().do_GET()

    def log_message(self, form, *arguments):
        pass


def serve(folder, log, token):
    Handler.log, Handler.token = log, token
    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def look(prefix):
    """What is at a prefix: what installers write for themselves and bytecode differ, and nobody cares."""
    found = {}
    for folder, folders, files in os.walk(prefix):
        folders[:] = [name for name in folders if name not in ("conda-meta", "imagespec", "__pycache__")]
        for name in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                said = "link " + os.readlink(path)
            else:
                with open(path, "rb") as file:
                    said = hashlib.sha256(file.read()).hexdigest()
                said += " x" if os.stat(path).st_mode & 0o100 else ""
            found[os.path.relpath(path, prefix)] = said
    return json.dumps(dict(sorted(found.items())))


async def install(folder, prefix, specs):
    import rattler

    channels = [rattler.Channel((folder / name).as_uri()) for name in ("conda-forge", "acme")]
    virtual = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString(build))
        for name, version, build in [("__glibc", "2.36", "0"), ("__unix", "0", "0"), ("__linux", "5.10", "0")]
    ]
    with tempfile.TemporaryDirectory() as work:
        gateway = rattler.Gateway(cache_dir=work + "/gateway")
        platforms = [MACHINE, "noarch"]
        records = await rattler.solve(channels, specs, gateway, platforms, virtual_packages=virtual)
        target = pathlib.Path(work) / "prefix"
        await rattler.install(
            records,
            target,
            cache_dir=work + "/cache",
            platform=rattler.Subdir(MACHINE),
            show_progress=False,
            alternative_target_prefix=prefix,
        )
        versions = {record.name.normalized: str(record.version) for record in records}
        return {"packages": dict(sorted(versions.items())), "files": json.loads(look(target))}


match sys.argv[1:]:
    case ["make", source, folder]:
        make(pathlib.Path(source), pathlib.Path(folder))
    case ["serve", folder, log, token]:
        serve(folder, log, token)
    case ["install", folder, prefix, *specs]:
        print(json.dumps(asyncio.run(install(pathlib.Path(folder), prefix, specs))))
    case ["look", prefix]:
        print(look(prefix))

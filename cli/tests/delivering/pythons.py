"""Serves the Python of a Go module as distributions are served to uv: an archive, and the list that names it.

Arguments: the folder of the module's files, and the one to serve. Prints the port.
"""

import functools
import gzip
import hashlib
import http.server
import io
import json
import pathlib
import platform
import sys
import tarfile

source, served = map(pathlib.Path, sys.argv[1:])
major, minor, patch = 3, 14, 6
machine = platform.machine()
name = f"cpython-{major}.{minor}.{patch}-{machine}-unknown-linux-gnu-install_only_stripped.tar.gz"
FOLDER = 1 << 31

with tarfile.open(served / name, "w:gz", compresslevel=1) as archive:
    for entry in json.loads((source / "files.json").read_text())["files"]:
        info = tarfile.TarInfo(f"python/{entry['name']}")
        info.mode = entry["perm"] & 0o777
        path = source / entry["name"]
        if "symlink" in entry:
            info.type, info.linkname = tarfile.SYMTYPE, entry["symlink"]
            archive.addfile(info)
        elif entry["perm"] & FOLDER:
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        else:
            packed = path.with_name(path.name + ".gz")
            data = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
port = server.server_address[1]
download = {
    "name": "cpython",
    "arch": {"family": machine, "variant": None},
    "os": "linux",
    "libc": "gnu",
    "major": major,
    "minor": minor,
    "patch": patch,
    "prerelease": "",
    "url": f"http://127.0.0.1:{port}/{name}",
    "sha256": hashlib.sha256((served / name).read_bytes()).hexdigest(),
    "variant": None,
    "build": None,
}
key = f"cpython-{major}.{minor}.{patch}-linux-{machine}-gnu"
(served / "downloads.json").write_text(json.dumps({key: download}))
print(port, flush=True)
server.serve_forever()

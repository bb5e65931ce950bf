"""Writes a wheel with everything that is allowed and rare: `python odd_wheel.py FOLDER`."""

import base64
import hashlib
import io
import sys
import zipfile

INFO = "Odd_Wheel-1.0.dist-info"
DATA = "Odd_Wheel-1.0.data"
FILES = [
    ("odd/__init__.py", b"def main():\n    return 0\n", 0o644, "stored"),
    ("odd/empty.py", b"", 0o644, "deflated"),
    ("odd/zip64.bin", bytes(range(256)) * 1024, 0o600, "zip64"),
    ("odd/repeated.txt", b"size and checksum follow the content, as in every file\n" * 999, 0o644, "deflated"),
    ("odd/program", b"#!/bin/sh\n", 0o700, "deflated"),
    ("odd/with space, comma and \"quote\".txt", b"1", 0o644, "deflated"),
    ("odd/\u00fcml\u00e4ut-\u65e5\u672c.py", b"x = 1\n", 0o644, "deflated"),
    ("odd/.hidden", b"", 0o444, "stored"),
    ("odd/" + "long" * 40 + "/" + "name" * 40 + ".txt", b"long", 0o644, "deflated"),
    ("odd/syntax_error.py", b"def (:\n", 0o644, "deflated"),
    (f"{DATA}/purelib/odd_pure.py", b"pure = 1\n", 0o644, "deflated"),
    (f"{DATA}/platlib/odd_plat.py", b"plat = 1\n", 0o644, "deflated"),
    (f"{DATA}/scripts/odd-python", b"#!python\nprint(1)\n", 0o644, "deflated"),
    (f"{DATA}/scripts/odd-flags", b"#!python -E\nprint(1)\n", 0o755, "deflated"),
    (f"{DATA}/scripts/odd-gui", b"#!pythonw\nprint(1)\n", 0o755, "stored"),
    (f"{DATA}/scripts/odd-shell", b"#!/bin/sh\necho 1\n", 0o644, "deflated"),
    (f"{DATA}/scripts/odd-binary", bytes(range(256)) * 99, 0o755, "deflated"),
    (f"{DATA}/scripts/odd-main", b"#!python\nshadowed by the entry point\n", 0o755, "deflated"),
    (f"{DATA}/data/share/odd/data.txt", b"data", 0o644, "deflated"),
    (f"{DATA}/data/etc/odd.conf", b"conf", 0o644, "deflated"),
    (f"{DATA}/headers/odd.h", b"#define ODD 1\n", 0o644, "deflated"),
    (f"{INFO}/METADATA", b"Metadata-Version: 2.1\nName: Odd.Wheel\nVersion: 1.0\n", 0o644, "deflated"),
    (f"{INFO}/WHEEL", b"Wheel-Version: 1.0\nGenerator: odd\nRoot-Is-Purelib: false\nTag: py3-none-any\n", 0o644, "deflated"),
    (
        f"{INFO}/entry_points.txt",
        b"[console_scripts]\nodd-main = odd:main\nodd-extra = odd:main [extra]\n\n[gui_scripts]\nodd-window = odd:main\n\n[odd.plugins]\nx = odd\n",
        0o644,
        "deflated",
    ),
    (f"{INFO}/licenses/LICENSE", b"free", 0o644, "deflated"),
]


class Pipe(io.RawIOBase):
    """Does not seek, so that every entry has a data descriptor."""

    def __init__(self, sink):
        self.sink = sink

    def writable(self):
        return True

    def write(self, data):
        return self.sink.write(data)


def row(name, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    quoted = '"' + name.replace('"', '""') + '"' if set(name) & set(',"') else name
    return f"{quoted},sha256={digest},{len(content)}\n"


def main(folder):
    record = "".join(row(name, content) for name, content, _, _ in FILES) + f"{INFO}/RECORD,,\n"
    files = FILES + [(f"{INFO}/RECORD", record.encode(), 0o664, "deflated")]
    with open(f"{folder}/odd_wheel-1.0-py3-none-any.whl", "wb") as file, zipfile.ZipFile(Pipe(file), "w") as archive:
        for name, content, mode, how in files:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_STORED if how == "stored" else zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=how == "zip64") as target:
                target.write(content)


main(sys.argv[1])

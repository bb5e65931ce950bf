"""Prints every file below the folders that holds a needle, as it is or compressed: FOLDER... -- NEEDLE..."""

import os
import pathlib
import sys
import zlib

split = sys.argv.index("--")
needles = [needle.encode() for needle in sys.argv[split + 1 :]]


def contents(data):
    yield data
    if data[:2] == b"\x1f\x8b":
        plain = b""
        while data[:2] == b"\x1f\x8b":
            member = zlib.decompressobj(31)
            plain += member.decompress(data)
            data = member.unused_data
        yield plain


searched = 0
for folder in sys.argv[1:split]:
    # Folders of others that work in the same cache come and go: `walk` passes over what is gone.
    for inside, _, names in os.walk(folder):
        for path in (pathlib.Path(inside, name) for name in names):
            try:
                data = b"" if path.is_symlink() or not path.is_file() else path.read_bytes()
            except FileNotFoundError:
                continue
            searched += 1
            if any(needle in content for content in contents(data) for needle in needles):
                print(path)
assert searched > 0

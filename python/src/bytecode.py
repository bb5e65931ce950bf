"""Compiles modules for whoever sends them on standard input, one distribution a request.

A request is the number of modules, then each as path and source; an answer is the compiled module of each, in
that order, or nothing where it does not compile. Numbers are four big-endian bytes, and every text is preceded by
its length. Each request is answered by a child of its own, so that what came before cannot show in the result. No
more than one module is held at a time, and nothing is read ahead, since the rest is another child's.
"""

import importlib._bootstrap_external as external
import importlib.util
import os
import struct
import sys


def exactly(count):
    parts = []
    while count:
        part = os.read(0, count)
        if not part:
            os._exit(1)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def text():
    return exactly(*struct.unpack(">I", exactly(4)))


def compiled(path, code):
    try:
        tree = compile(code, path.decode(), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, UnicodeError, RecursionError, MemoryError):
        return b""
    return bytes(external._code_to_hash_pyc(tree, importlib.util.source_hash(code), False))


def answer(count):
    sink = sys.stdout.buffer
    for _ in range(count):
        result = compiled(text(), text())
        sink.write(struct.pack(">I", len(result)))
        sink.write(result)
    sink.flush()


while True:
    head = os.read(0, 1)
    if not head:
        break
    count = struct.unpack(">I", head + exactly(3))[0]
    child = os.fork()
    if child == 0:
        answer(count)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)

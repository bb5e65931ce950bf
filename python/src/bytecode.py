"""Compiles modules for whoever sends them on standard input, one wheel a request.

A request is the number of modules, then each as path and source; an answer is the compiled module of each, or
nothing where it does not compile. Numbers are four big-endian bytes, and every text is preceded by its length.
Each request is answered by a child of its own, so that what came before cannot show in the result.
"""

import importlib._bootstrap_external as external
import importlib.util
import os
import struct
import sys

source, sink = sys.stdin.buffer, sys.stdout.buffer


def exactly(count):
    data = source.read(count)
    if len(data) != count:
        sys.exit(1)
    return data


def text():
    return exactly(*struct.unpack(">I", exactly(4)))


def compiled(path, code):
    try:
        tree = compile(code, path.decode(), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, UnicodeError, RecursionError, MemoryError):
        return b""
    return bytes(external._code_to_hash_pyc(tree, importlib.util.source_hash(code), False))


def answer(modules):
    for path, code in modules:
        result = compiled(path, code)
        sink.write(struct.pack(">I", len(result)) + result)
    sink.flush()


while True:
    head = source.read(4)
    if not head:
        break
    modules = [(text(), text()) for _ in range(struct.unpack(">I", head)[0])]
    child = os.fork()
    if child == 0:
        answer(modules)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)

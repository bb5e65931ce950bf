"""The ``imagespec`` command as a process: found, run, and its answer read. Nothing here is flytekit's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from pathlib import Path
from typing import Any

#: Names the command, instead of the one that was installed with this package.
COMMAND_VARIABLE = "IMAGESPEC_COMMAND"
#: How many of the last lines an error repeats.
TAIL = 20
#: The exit code that says: nobody can tell whether the image exists.
UNKNOWN = 4


class BuildError(RuntimeError):
    """The command failed. ``code`` is its exit code, and the message what it said last."""

    def __init__(self, message: str, code: int) -> None:
        """Keep both."""
        super().__init__(message)
        self.code = code


def find_command() -> str:
    """The command: of the variable, of this environment, or of ``PATH``."""
    named = os.environ.get(COMMAND_VARIABLE)
    if named:
        return named
    folders = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    for folder in folders:
        candidate = Path(folder) / "imagespec"
        if candidate.is_file():
            return str(candidate)
    found = shutil.which("imagespec")
    if found is None:
        message = f"the imagespec command is not there; reinstall imagespec-flytekit, or name it in {COMMAND_VARIABLE}"
        raise FileNotFoundError(message)
    return found


def build(document: dict[str, Any], *arguments: str, quiet: bool = False) -> list[dict[str, Any]]:
    """Build the images of a document, with the command's progress on standard error, and return what became of each."""
    argv = [find_command(), "build", "-", "--json", "--progress", "quiet" if quiet else "plain", *arguments]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    told: deque[str] = deque(maxlen=TAIL)
    errors = process.stderr

    def tell() -> None:
        for line in errors:
            told.append(line.rstrip("\n"))
            if not quiet:
                print(line, end="", file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        try:
            json.dump(document, process.stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # It ended early, and says why.
        answer = process.stdout.read()
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    teller.join()
    if code != 0:
        lines = list(told)
        first = next((at for at, line in enumerate(lines) if line.startswith("error:")), 0)
        raise BuildError("\n".join(lines[first:]) or f"imagespec ended with exit code {code}", code)
    images: list[dict[str, Any]] = json.loads(answer)["images"]
    return images

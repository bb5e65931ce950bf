"""flytekit's ImageSpec as the JSON document that the ``imagespec`` command reads.

This file is also part of the command itself: with ``--via python`` it runs in the user's interpreter. It therefore
needs nothing but flytekit and Python 3.9.
"""

from __future__ import annotations

import os
from typing import Any

from flytekit.constants import CopyFileDetection
from flytekit.image_spec.image_spec import ImageSpec

#: The format of the documents. The command refuses others.
FORMAT = 1

#: Builders that stand for "whichever the command is told".
ANY_BUILDER = ("imagespec", "imagespec:any")


def _plain(value: Any) -> Any:
    """A value as JSON has it: paths are texts, tuples lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _fields(spec: ImageSpec) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name in spec.__dataclass_fields__:
        value = getattr(spec, name)
        if value is None or (name == "builder" and value in ANY_BUILDER):
            continue
        if name == "base_image" and isinstance(value, ImageSpec):
            continue
        if isinstance(value, CopyFileDetection):
            value = value.name.lower()
        if name == "env":
            value = {str(key): str(item) for key, item in value.items()}
        fields[name] = _plain(value)
    return fields


def _loaded(spec: ImageSpec) -> list[str] | None:
    """The files of the modules that are loaded, below ``source_root``, where flytekit copies those."""
    if spec.source_copy_mode != CopyFileDetection.LOADED_MODULES or not spec.source_root:
        return None
    from flytekit.tools.script_mode import ls_files

    root = os.path.abspath(spec.source_root)
    files, _ = ls_files(root, CopyFileDetection.LOADED_MODULES, deref_symlinks=False, ignore_group=None)
    return sorted(os.path.relpath(file, root) for file in files)


def declaration(spec: ImageSpec) -> dict[str, Any]:
    """What an image is made of, and what flytekit calls it."""
    base = spec.base_image if isinstance(spec.base_image, ImageSpec) else None
    # Not `image_name()`: that is another one once a builder has named the image.
    name = f"{spec.name}:{spec.tag}"
    return {
        "fields": _fields(spec),
        "base": declaration(base) if base is not None else None,
        "named": {
            "id": spec.id,
            "tag": spec.tag,
            "image": f"{spec.registry}/{name}" if spec.registry else name,
        },
        "loaded": _loaded(spec),
    }

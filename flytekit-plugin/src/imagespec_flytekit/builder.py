"""flytekit's side: a builder of ImageSpecs."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from importlib.metadata import version
from typing import Any

from flytekit.image_spec.image_spec import ImageSpec, ImageSpecBuilder

from imagespec_flytekit import command
from imagespec_flytekit.declaration import FORMAT, declaration


class ImagespecBuilder(ImageSpecBuilder):
    """Hands ImageSpecs to the ``imagespec`` command."""

    builder_type = "imagespec"

    def __init__(self) -> None:
        """Begin with no build under way."""
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[str]] = {}

    def should_build(self, image_spec: ImageSpec) -> bool:
        """Whether the image is missing, or is to be built in any case. An error, where nobody can tell."""
        if image_spec._is_force_push:
            return True
        try:
            image = command.build(_document(image_spec), "--dry-run", quiet=True)[0]
        except command.BuildError as error:
            if error.code != command.UNKNOWN:
                raise
            message = f"Build failed as ImageSpec failed to check whether the image exists.\n{error}"
            raise command.BuildError(message, error.code) from error
        return bool(image.get("would_build", False))

    def build_image(self, image_spec: ImageSpec) -> str:
        """Build and push the image, and return its name with its digest. Equal requests at the same time are one."""
        name = image_spec.image_name()
        with self._lock:
            running = self._under_way.get(name)
            if running is None:
                mine: Future[str] = Future()
                self._under_way[name] = mine
        if running is not None:
            return running.result()
        try:
            forced = ("--force",) if image_spec._is_force_push else ()
            image = command.build(_document(image_spec), *forced)[0]
            digest = image.get("digest")
            reference = f"{image['reference']}@{digest}" if digest else str(image["reference"])
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(reference)
            return reference
        finally:
            with self._lock:
                del self._under_way[name]


def _document(image_spec: ImageSpec) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "flytekit": version("flytekit"),
        "images": [declaration(image_spec)],
        "entities": [],
    }

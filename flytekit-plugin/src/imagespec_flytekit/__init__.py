"""Builds flytekit's ImageSpecs with the ``imagespec`` command: ``ImageSpec(builder="imagespec")``."""

from __future__ import annotations

import os

from flytekit.image_spec.image_spec import ImageBuildEngine

from imagespec_flytekit.builder import ImagespecBuilder
from imagespec_flytekit.command import BuildError, find_command

__all__ = ["BuildError", "ImagespecBuilder", "find_command", "register"]

#: With this variable set, images that name no builder are built by this one.
DEFAULT_VARIABLE = "IMAGESPEC_DEFAULT_BUILDER"


def register() -> None:
    """Tell flytekit of the builder. flytekit's own has priority 1: below it, a builder has to be named."""
    wanted = os.environ.get(DEFAULT_VARIABLE, "").lower() in ("true", "1", "yes", "on")
    ImageBuildEngine.register(ImagespecBuilder.builder_type, ImagespecBuilder(), priority=100 if wanted else 0)


register()

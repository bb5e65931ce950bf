"""Puts the ``imagespec`` command into the wheel."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommandHook(BuildHookInterface):
    """The command that the variable ``IMAGESPEC_BINARY`` names, or that the sources around this folder make."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the command to what the wheel holds."""
        if version == "editable":
            return
        named = os.environ.get("IMAGESPEC_BINARY")
        binary = Path(named) if named else self.compiled()
        if not binary.is_file():
            message = f"there is no imagespec command: `{binary}`"
            raise FileNotFoundError(message)
        build_data["shared_scripts"][str(binary)] = "imagespec"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def compiled(self) -> Path:
        """Compile the command."""
        workspace = Path(self.root).parent
        subprocess.run(["cargo", "build", "--release", "--package", "imagespec-cli"], cwd=workspace, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", workspace / "target"))
        return target / "release" / "imagespec"

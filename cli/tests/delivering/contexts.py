"""What flytekit's own builder writes for declarations: one JSON document a line in, one a line out."""

import json
import os
import pathlib
import sys
import tempfile
import tomllib
import warnings

from flytekit.image_spec.default_builder import create_docker_context
from flytekit.image_spec.image_spec import ImageSpec

warnings.simplefilter("ignore")

for line in sys.stdin:
    folder = pathlib.Path(json.loads(line))
    os.chdir(folder)
    fields = tomllib.loads((folder / "imagespec.toml").read_text())["images"]["app"]
    fields = {**fields, "name": "app"}
    secrets = fields.get("pip_secret_mounts")
    if secrets is not None:
        fields["pip_secret_mounts"] = [tuple(mount) for mount in secrets]
    if fields.get("source_root"):
        fields.setdefault("source_copy_mode", "all")
    if isinstance(fields.get("source_copy_mode"), str):
        from flytekit.constants import CopyFileDetection

        fields["source_copy_mode"] = CopyFileDetection[fields["source_copy_mode"].upper()]
    with tempfile.TemporaryDirectory() as context:
        try:
            create_docker_context(ImageSpec(**fields), pathlib.Path(context))
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
            continue
        files = {}
        for path in sorted(pathlib.Path(context).rglob("*")):
            if path.is_file():
                files[str(path.relative_to(context))] = path.read_bytes().decode(errors="replace")
        print(json.dumps({"files": files}), flush=True)

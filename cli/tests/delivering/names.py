"""flytekit's names of images: one declaration a line in, as JSON, and one answer a line out."""

import json
import os
import sys
import warnings

from flytekit.constants import CopyFileDetection
from flytekit.image_spec.image_spec import ImageSpec

warnings.simplefilter("ignore")


def spec(fields):
    fields = dict(fields)
    if isinstance(fields.get("base_image"), dict):
        fields["base_image"] = spec(fields["base_image"])
    if fields.get("source_copy_mode") is not None:
        fields["source_copy_mode"] = CopyFileDetection[fields["source_copy_mode"].upper()]
    if fields.get("pip_secret_mounts") is not None:
        fields["pip_secret_mounts"] = [tuple(mount) for mount in fields["pip_secret_mounts"]]
    return ImageSpec(**fields)


for line in sys.stdin:
    asked = json.loads(line)
    os.chdir(asked["folder"])
    try:
        image = spec(asked["fields"])
        answer = {"id": image.id, "name": image.image_name()}
        if "engine" in asked:
            os.environ["DOCKER_HOST"] = asked["engine"]
            answer["exists"] = image.exist()
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)

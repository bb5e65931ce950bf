"""What flytekit says of modules: a question a line in, as JSON, and a document a line out."""

import copy
import importlib
import json
import os
import sys
import warnings

from flytekit.configuration import FastSerializationSettings, Image, ImageConfig, SerializationSettings
from flytekit.core.container_task import ContainerTask
from flytekit.core.context_manager import FlyteEntities
from flytekit.core.python_auto_container import update_image_spec_copy_handling
from flytekit.core.workflow import WorkflowBase
from flytekit.image_spec.image_spec import ImageBuildEngine, ImageSpec

warnings.simplefilter("ignore")
ImageBuildEngine.register("imagespec:any", object(), priority=1 << 30)
names = {"__name__": "declaration"}


def document(module, root):
    settings = SerializationSettings(
        image_config=ImageConfig(default_image=Image(name="default", fqn="default", tag="x")),
        fast_serialization_settings=FastSerializationSettings(enabled=True),
        source_root=root,
    )
    images, entities = [], []
    for entity in FlyteEntities.entities:
        at, _, name = entity.name.rpartition(".")
        if at != module and not (isinstance(entity, ContainerTask) and not at):
            continue
        image = None if isinstance(entity, WorkflowBase) else getattr(entity, "container_image", getattr(entity, "_image", None))
        found = []
        if isinstance(image, ImageSpec):
            update_image_spec_copy_handling(image, settings)
            image.id
            found.append(len(images))
            images.append(names["declaration"](copy.deepcopy(image)))
        kind = "workflow" if isinstance(entity, WorkflowBase) else "task"
        entities.append({"module": module, "name": name, "kind": kind, "images": found})
    return {"format": names["FORMAT"], "flytekit": None, "images": images, "entities": entities}


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    asked = json.loads(line)
    if "declaration" in asked:
        exec(asked["declaration"], names)
    if asked["root"] not in sys.path:
        sys.path.insert(0, asked["root"])
    os.chdir(asked["root"])
    before = dict(os.environ)
    os.environ.update(asked["variables"])
    FlyteEntities.entities.clear()
    for loaded in [name for name in sys.modules if name.split(".")[0] == asked["module"].split(".")[0]]:
        del sys.modules[loaded]
    importlib.invalidate_caches()
    try:
        importlib.import_module(asked["module"])
        answer = document(asked["module"], asked["root"])
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    os.environ.clear()
    os.environ.update(before)
    print(json.dumps(answer), file=answers, flush=True)

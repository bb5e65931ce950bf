"""The images of tasks, as flytekit has them: a question as JSON in the first argument, the answer on file 1."""

import contextlib
import copy
import json
import os
import sys
import traceback
from collections import OrderedDict


def user_frames(error, hidden):
    """The traceback without the frames of this program, of Python's own and of flytekit."""
    shown = traceback.TracebackException.from_exception(error)
    link = shown
    while link is not None:
        kept = [frame for frame in link.stack if not any(part in frame.filename for part in hidden)]
        link.stack = traceback.StackSummary.from_list(kept)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "".join(shown.format()).rstrip()


def load(question):
    from flytekit.configuration import (
        FastSerializationSettings,
        Image,
        ImageConfig,
        SerializationSettings,
    )
    from flytekit.core.base_task import PythonTask
    from flytekit.core.container_task import ContainerTask
    from flytekit.core.context_manager import FlyteContextManager, FlyteEntities
    from flytekit.core.python_auto_container import update_image_spec_copy_handling
    from flytekit.core.workflow import WorkflowBase
    from flytekit.image_spec.image_spec import ImageBuildEngine, ImageSpec
    from flytekit.tools import module_loader
    from flytekit.tools.translator import get_serializable

    names = {"__name__": "imagespec"}
    exec(compile(question["declaration"], "<string>", "exec"), names)
    declaration = names["declaration"]

    # Whoever names no builder gets this one, so that it can be told from a builder that was named.
    ImageBuildEngine.register("imagespec:any", object(), priority=1 << 30)

    roots = [project["root"] for project in question["projects"]]
    settings = SerializationSettings(
        project="project",
        domain="domain",
        version="version",
        image_config=ImageConfig(default_image=Image(name="default", fqn="default", tag="x")),
        fast_serialization_settings=FastSerializationSettings(enabled=question["fast"], destination_dir="/root"),
        source_root=roots[0],
    )
    context = FlyteContextManager.current_context().with_serialization_settings(settings)
    with FlyteContextManager.with_context(context):
        for project in question["projects"]:
            with module_loader.add_sys_path(project["root"]):
                module_loader.just_load_modules([project["module"]])

        def images_of(entity):
            found = []
            template = getattr(entity, "pod_template", None)
            pod = getattr(template, "pod_spec", None)
            image = getattr(entity, "_image", None) if isinstance(entity, ContainerTask) else None
            candidates = [getattr(entity, "container_image", None), image]
            for containers in ("containers", "init_containers"):
                candidates += [getattr(container, "image", None) for container in getattr(pod, containers, None) or []]
            for candidate in candidates:
                if isinstance(candidate, ImageSpec) and not any(candidate is known for known in found):
                    found.append(candidate)
            return found

        # flytekit goes through the code as it does to register it, and looks images up at the very moments at which it
        # would: an id or a tag is kept once it is asked for, and a declaration may change before and after.
        looked_up = {}

        def look_up(image):
            if id(image) not in looked_up:
                image.id
                looked_up[id(image)] = declaration(copy.deepcopy(image))
            return looked_up[id(image)]

        ImageBuildEngine.build = staticmethod(look_up)
        serialized = OrderedDict()
        declared = FlyteEntities.entities.copy()
        for entity in declared:
            # What cannot be registered for other reasons has its images all the same.
            with contextlib.suppress(Exception):
                get_serializable(serialized, settings, entity)

        images, entities = [], []
        for entity in declared:
            module, _, name = getattr(entity, "name", "").rpartition(".")
            is_workflow = isinstance(entity, WorkflowBase)
            if not is_workflow and not isinstance(entity, PythonTask):
                continue
            indexes = []
            for image in [] if is_workflow else images_of(entity):
                if id(image) not in looked_up:
                    update_image_spec_copy_handling(image, settings)
                document = look_up(image)
                if document not in images:
                    images.append(document)
                indexes.append(images.index(document))
            kind = "workflow" if is_workflow else "task"
            entities.append({"module": module, "name": name, "kind": kind, "images": indexes})

    from importlib.metadata import version

    return {"format": names["FORMAT"], "flytekit": version("flytekit"), "images": images, "entities": entities}


def main():
    question = json.loads(sys.argv[1])
    # What the code prints is no part of the answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer = load(question)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        hidden = [
            "<string>",
            "<frozen ",
            os.path.dirname(os.__file__) + os.sep + "importlib",
            os.sep + "flytekit" + os.sep,
        ]
        answer = {
            "error": {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": user_frames(error, hidden),
            }
        }
    json.dump(answer, answers)
    answers.flush()


main()

from flytekit import ImageSpec, task
from flytekit.constants import CopyFileDetection

everything = ImageSpec(name="everything", source_copy_mode=CopyFileDetection.ALL)
nothing = ImageSpec(name="nothing", source_root="corpus", source_copy_mode=CopyFileDetection.NO_COPY)
some = ImageSpec(name="some", source_root="corpus/inner", source_copy_mode=CopyFileDetection.ALL, copy=["corpus/shared.py"])


@task(container_image=everything)
def of_everything() -> int:
    return 1


@task(container_image=nothing)
def of_nothing() -> int:
    return 1


@task(container_image=some)
def of_some() -> int:
    return 1

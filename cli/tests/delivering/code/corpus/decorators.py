from functools import partial, wraps

from flytekit import ContainerTask, ImageSpec, PodTemplate, Resources, dynamic, kwtypes, map_task, task, workflow

cpu = ImageSpec(name="cpu")
gpu = ImageSpec(name="gpu", packages=["torch"])
gpu_task = partial(task, container_image=gpu, requests=Resources(gpu="1"))
options = {"container_image": cpu, "retries": 2}


def team_task(function=None, **more):
    """As teams wrap the decorator."""
    if function is None:
        return partial(team_task, **more)
    return task(function, container_image=cpu, **more)


def logged(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@gpu_task
def by_partial() -> int:
    return 1


@gpu_task(cache=True, cache_version="1")
def by_partial_called() -> int:
    return 1


@team_task
def by_wrapper() -> int:
    return 1


@team_task(retries=3)
def by_wrapper_called() -> int:
    return 1


@task(**options)
def by_options() -> int:
    return 1


@dynamic(container_image=gpu)
def by_dynamic() -> int:
    return by_options()


@task(container_image=gpu)
@logged
def below_another() -> int:
    return 1


container = ContainerTask(
    name="container", image=cpu, input_data_dir="/in", output_data_dir="/out", outputs=kwtypes(o=int), command=["true"]
)
called = task(lambda: None, container_image=gpu) if False else None


@task(container_image=cpu)
def mapped(n: int) -> int:
    return n


@workflow
def flow() -> list[int]:
    return map_task(mapped)(n=[1, 2])

from flytekit import ImageSpec, task, workflow

image_spec = ImageSpec(name="say-hello-image", requirements="requirements.txt")


@task(container_image=image_spec)
def say_hello(name: str) -> str:
    return f"Hello, {name}!"


@workflow
def hello_world_wf(name: str = "world") -> str:
    return say_hello(name=name)

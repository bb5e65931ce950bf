from flytekit import ImageSpec, task

listed = ["before"]
image = ImageSpec.from_env(name="pinned", packages=listed, pinned_packages=["flytekit", "click"])
empty = ImageSpec.from_env(name="empty")


@task(container_image=empty)
def of_empty() -> int:
    return 1


@task(container_image=image)
def pinned() -> int:
    return 1

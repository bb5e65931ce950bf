from flytekit import ImageSpec, task

listed = ["before"]
image = ImageSpec.from_env(name="pinned", packages=listed, pinned_packages=["flytekit", "click"])


@task(container_image=image)
def pinned() -> int:
    return 1

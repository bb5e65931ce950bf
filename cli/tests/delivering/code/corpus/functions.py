from flytekit import ImageSpec, task

COUNT = 0


def count():
    global COUNT
    COUNT += 1
    return COUNT


def packages(*names, version=None, **pins):
    found = []
    for name in names:
        if name == "skip":
            continue
        if name == "stop":
            break
        found.append(name if version is None else f"{name}=={version}")
    else:
        found.append("whole")
    for name, pin in pins.items():
        found.append(f"{name}=={pin}")
    return found


def outer(prefix):
    def inner(name, fallback=["shared"]):
        fallback.append(name)
        return ImageSpec(name=f"{prefix}-{name}", packages=list(fallback))

    return inner


make = outer("made")
double = lambda text, n=2: text * n  # noqa: E731
images = {name: make(name) for name in ["one", "two"]}
image = ImageSpec(
    name="functions",
    packages=packages("a", "skip", "b") + packages("c", "stop", "d", version="1", e="2"),
    env={"COUNT": str(count() + count()), "DOUBLE": double("ab"), "NOW": str(COUNT)},
)
if (length := len(images)) > 1:
    image = image.with_packages(f"n{length}")


@task(container_image=image)
def of_functions() -> int:
    return 1


@task(container_image=images["two"])
def of_dict() -> int:
    return 1


for name in images:

    @task(container_image=images[name])
    def in_loop() -> int:
        return 1

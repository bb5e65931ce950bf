from flytekit import ImageSpec, task

start = ImageSpec(name="chains", packages=["a"])
longer = start.with_packages(["b", "c"]).with_packages("d").with_apt_packages("git").with_commands(["x", "y"])
more = longer.with_copy("corpus/chains.py").with_runtime_packages(["r"]).with_builder_options({"k": 1}).with_builder_options({"k": 2, "l": []})
forced = more.force_push()
start.packages.append("late")
start.env = {"LATE": "1"}


@task(container_image=start)
def first() -> int:
    return 1


@task(container_image=longer)
def second() -> int:
    return 1


@task(container_image=more)
def third() -> int:
    return 1


@task(container_image=forced)
def fourth() -> int:
    return 1

import copy

from flytekit import ImageSpec, task

packages = ["a", "b"]
alias = packages
alias.append("c")
packages += ["d"]
packages.extend(("e", "f"))
packages.insert(1, "between")
packages.remove("b")
env = {"A": "1"}
env["B"] = "2"
env.update({"C": "3"}, D="4")
env |= {"E": "5"}
image = ImageSpec(name="changes", packages=packages, env=env, apt_packages=copy.deepcopy(packages))
copied = packages.copy()
packages.append("after")
copied.append("not in the image")
del copied[0]
first, *rest = ("x", "y", "z")
(left, right), middle = ("l", "r"), "m"


class Settings:
    name = "settings"
    registry = "r.example"
    versions = {"a": "1"}


Settings.name = "changed"
other = ImageSpec(name=Settings.name, registry=Settings.registry, env={**Settings.versions, "u": left + right + middle})


@task(container_image=image)
def changed() -> int:
    return 1


@task(container_image=other)
def of_class() -> int:
    return 1

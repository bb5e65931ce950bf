import os
from functools import partial
from pathlib import Path

from flytekit import ImageSpec, dynamic, task, workflow

HERE = Path(__file__).parent
PACKAGES = ["pandas", f"numpy=={'1.26'}"]
PACKAGES += [name for name in ("a", "b") if name != "b"]
base = ImageSpec(name="base", packages=PACKAGES, registry=os.environ.get("R", "r.example"))
child = ImageSpec(base_image=base, env={"A": "1", **{"B": "2"}}).with_packages("requests").with_apt_packages(["git"])
gpu = partial(task, container_image=child)


@gpu
def first() -> int:
    return 1


@dynamic(container_image=base)
def second() -> int:
    return first()


@workflow
def flow() -> int:
    return second()

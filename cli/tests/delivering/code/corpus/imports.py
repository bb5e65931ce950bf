import corpus.shared as far
from corpus import shared
from corpus.inner import NAME, PARENT

import flytekit as fl
from flytekit.image_spec import ImageSpec as Spec
from flytekit.image_spec.image_spec import ImageSpec

from .shared import BASE, image

aliased = Spec(name=NAME, base_image=PARENT)
team = image("imports", ["six"], env={"A": "b"})
other = far.image("other", apt_packages=["curl"])


@fl.task(container_image=aliased)
def of_alias() -> int:
    return 1


@fl.task(container_image=team)
def of_team() -> int:
    return 1


@fl.dynamic(container_image=other)
def of_other() -> int:
    return 1


@fl.task(container_image=shared.BASE)
def of_base() -> int:
    return 1


@fl.task(container_image=fl.ImageSpec(name="inline", base_image=ImageSpec(name="below", base_image=BASE)))
def inline() -> int:
    return 1

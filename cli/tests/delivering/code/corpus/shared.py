import os

from flytekit import ImageSpec

REGISTRY = os.environ.get("CORPUS_REGISTRY", "registry.example/acme")
PACKAGES = ["pandas==2.2.2", "pyarrow"]
DEFAULTS = {"registry": REGISTRY, "apt_packages": ["git"]}
BASE = ImageSpec(name="base", packages=PACKAGES, registry=REGISTRY)


def image(name, packages=(), **fields):
    """An image with what every image of the team has."""
    merged = {**DEFAULTS, **fields}
    return ImageSpec(name=f"team-{name}", packages=["requests", *packages], **merged)

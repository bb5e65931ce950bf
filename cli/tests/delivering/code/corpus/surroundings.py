import os
import sys
from os import environ, getenv
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from flytekit import ImageSpec, task

if TYPE_CHECKING:
    from nowhere import Nothing

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.in"
packages = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
old: Optional[str] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "requirements.in")
environ.setdefault("CORPUS_SET", "by the code")
os.environ["CORPUS_ASSIGNED"] = "assigned"
if sys.version_info >= (3, 8):
    packages.append("modern")
else:
    packages.append("old")

image = ImageSpec(
    name=os.getenv("CORPUS_NAME", "surroundings"),
    registry=os.environ["CORPUS_REGISTRY"],
    requirements=str(REQUIREMENTS),
    packages=packages,
    env={
        "SET": os.environ["CORPUS_SET"],
        "ASSIGNED": getenv("CORPUS_ASSIGNED"),
        "UNSET": os.environ.get("CORPUS_UNSET") or "nothing",
        "THERE": str("CORPUS_REGISTRY" in os.environ),
        "STEM": Path(__file__).stem + Path(__file__).suffix,
        "UP": str(Path("a") / ".." / "b" / "./c"),
        "SAME": str(str(REQUIREMENTS) == old),
        "EXISTS": str(REQUIREMENTS.exists()) + str(os.path.exists("nowhere")),
        "PARENTS": HERE.parents[0].name,
    },
)


@task(container_image=image)
def surroundings() -> int:
    return 1


if __name__ == "__main__":
    raise SystemExit(1)

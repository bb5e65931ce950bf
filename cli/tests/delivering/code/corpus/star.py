from corpus.inner.names import *
from flytekit import *

image = ImageSpec(name=NAME)


@task(container_image=image)
def star() -> int:
    return 1

from flytekit import ImageSpec, task

try:
    from corpus.inner.names import NAME
except ImportError:
    NAME = "fallback"

try:
    LIMIT = "1"
finally:
    DONE = "yes"

try:
    import nowhere_to_be_found

    EXTRA = ["extra"]
except ImportError:
    nowhere_to_be_found = None

image = ImageSpec(name=NAME, env={"LIMIT": LIMIT, "DONE": DONE})
if image.is_container():
    import json


@task(container_image=image)
def attempts() -> int:
    return 1

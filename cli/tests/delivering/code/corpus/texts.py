from flytekit import ImageSpec, task

VERSION = 3
MINOR = "11"
NAMES = ["a", "b", "c"]
PYTHON: str = f"{VERSION}.{MINOR}"
NAME = "texts" + "-" + "of".upper().lower()
ENV = {
    "joined": ",".join(NAMES),
    "format": "{}-{}".format("x", 2),
    "named": "{a}{{}}{0}".format("p", a="q"),
    "percent": "%s/%d%%" % ("v", 7),
    "sliced": "abcdef"[1:-1] + NAMES[-1] + "xyz"[0],
    "stripped": "  padded ".strip(),
    "replaced": "a.b.c".replace(".", "_"),
    "split": "|".join("k=v".split("=")),
    "prefix": "v1.2".removeprefix("v"),
    "times": "ab" * 2,
    "number": str(len(NAMES) * 10 // 3 - 1),
    "choice": "yes" if VERSION >= 3 else "no",
    "either": "" or "fallback",
    "both": "first" and "second",
    "in": str("a" in NAMES),
    "not": str(not NAMES),
    "none": str(None is None),
}
image = ImageSpec(name=NAME, python_version=PYTHON, env=ENV, packages=[f"p{n}=={v}" for n, v in zip(NAMES, range(3))])


@task(container_image=image)
def texts() -> int:
    return 1

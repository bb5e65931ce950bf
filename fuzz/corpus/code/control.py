from flytekit import ImageSpec, task

names, found = ["a", "b", "c"], {}
for at, name in enumerate(names):
    if name == "b":
        continue
    found[name] = str(at)
else:
    found["end"] = "1"
try:
    value = found["missing"]
except KeyError as error:
    value = "none"
finally:
    names.append("d")
while len(names) > 9:
    names.pop()


def make(name, *more, pin=None, **env):
    global names
    if pin:
        return ImageSpec(name=name, packages=[f"{x}=={pin}" for x in more], env=env)
    return ImageSpec(name=name)


class Settings:
    image = make("x", "y", pin="1", A="b")


with open("/dev/null") as file:
    text = file.read()
match names:
    case [first, *rest]:
        text = first


@task(container_image=Settings.image)
def train() -> int:
    return 1

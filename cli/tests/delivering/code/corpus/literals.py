from flytekit import ImageSpec, task

image = ImageSpec(
    name="Literals",
    python_version="3.11",
    builder="default",
    env={"A": "1", "B": "it's", "ü": 'say "hi"'},
    registry="GHCR.io/Acme",
    packages=["pandas>=2", "numpy"],
    conda_packages=["cudatoolkit"],
    conda_channels=["pytorch"],
    apt_packages=["git"],
    cuda="12.1",
    cudnn="8",
    base_image="debian:bookworm-slim",
    platform="linux/amd64,linux/arm64",
    pip_index="https://index.example/simple",
    pip_extra_index_url=["https://more.example/simple"],
    pip_secret_mounts=[("secret.txt", "/run/secret")],
    pip_extra_args="--pre",
    registry_config="/etc/registry.json",
    entrypoint=[],
    commands=["echo 'one'", "echo two"],
    tag_format="{spec_hash}-dev",
    runtime_packages=["sphinx"],
    builder_options={"a": [1, True, None, 1.5, -2], "b": {"c": "d"}},
    builder_config={"uv_image": "uv:1"},
)
positional = ImageSpec("positional", "3.12", None, None, {"X": "y"})
multiline = ImageSpec(name="a" "b", commands=["""first
second"""], env={"R": r"\d", "N": "a\tb\\n"})


@task(container_image=image)
def all_fields() -> int:
    return 1


@task(container_image=positional)
def by_position() -> int:
    return 1


@task(container_image=multiline)
def of_lines() -> int:
    return 1


@task(container_image="debian:bookworm")
def by_reference() -> int:
    return 1


@task
def bare() -> int:
    return 1

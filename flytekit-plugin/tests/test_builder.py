"""Against the real flytekit, the real command and a real registry, which a variable names."""

import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from flytekit import ImageSpec
from flytekit.image_spec.image_spec import ImageBuildEngine

from imagespec_flytekit import BuildError, ImagespecBuilder, find_command

REGISTRY = os.environ["IMAGESPEC_TEST_REGISTRY"]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The arguments of every call of the command."""
    log = tmp_path / "calls"
    log.touch()
    script = tmp_path / "imagespec"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {find_command()} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGESPEC_COMMAND", str(script))
    monkeypatch.chdir(tmp_path)
    return lambda: log.read_text().splitlines()


@pytest.fixture(autouse=True)
def forgetful_engine():
    """flytekit keeps what it has built."""
    ImageBuildEngine.build.cache_clear()
    ImageBuildEngine._IMAGE_NAME_TO_REAL_NAME.clear()


def spec(name, **fields):
    fields = {"registry": f"{REGISTRY}/plugin", "env": {"NAME": name}, "builder": "imagespec", **fields}
    return ImageSpec(name=name, **fields)


def digest_in_registry(image):
    name, tag = image.image_name().removeprefix(f"{REGISTRY}/").split("@")[0].split(":")
    request = urllib.request.Request(f"http://{REGISTRY}/v2/{name}/manifests/{tag}", method="HEAD")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.headers["Docker-Content-Digest"]
    except urllib.error.HTTPError:
        return None


def test_an_image_is_built_once_and_known_by_its_digest(calls):
    image = spec("once")
    ImageBuildEngine.build(image)
    digest = digest_in_registry(image)
    assert image.image_name().endswith(f"@{digest}")
    assert len(calls()) == 2  # Asked for, built.

    ImageBuildEngine.build.cache_clear()
    ImageBuildEngine._IMAGE_NAME_TO_REAL_NAME.clear()
    ImageBuildEngine.build(image)
    assert len(calls()) == 3
    assert "--dry-run" in calls()[2]


def test_a_forced_push_builds_what_exists(calls):
    ImageBuildEngine.build(spec("forced"))
    ImageBuildEngine.build.cache_clear()
    ImageBuildEngine.build(spec("forced").force_push())
    assert "--force" in calls()[-1]


def test_the_variable_of_flytekit_forces(calls, monkeypatch):
    monkeypatch.setenv("FLYTE_FORCE_PUSH_IMAGE_SPEC", "true")
    ImageBuildEngine.build(spec("variable"))
    assert len(calls()) == 1
    assert "--force" in calls()[0]


def test_an_image_may_start_from_another(calls):
    base = spec("base")
    child = spec("child", base_image=base, env={"CHILD": "1"})
    ImageBuildEngine.build(child)
    assert digest_in_registry(base)
    assert digest_in_registry(child)


def test_a_failure_says_why(calls, capsys):
    image = spec("broken", packages=["there-is-no-such-package-anywhere-1234"])
    with pytest.raises(BuildError, match="there-is-no-such-package-anywhere-1234") as failure:
        ImageBuildEngine.build(image)
    assert failure.value.code == 2  # What is asked for is wrong.
    # What the command tells while it works is seen, too.
    assert "building" in capsys.readouterr().err


def test_what_cannot_be_asked_is_not_assumed_to_exist(calls):
    image = spec("nowhere", registry="localhost:1/nowhere")
    with pytest.raises(BuildError, match="failed to check") as failure:
        ImageBuildEngine.build(image)
    assert failure.value.code == 4


def test_four_threads_make_one_build(calls):
    builder = ImagespecBuilder()
    image = spec("threads")
    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(lambda _: builder.build_image(image), range(4)))
    assert len(names) == 1
    built = [call for call in calls() if "--dry-run" not in call]
    assert len(built) == 1


def test_images_stay_here_when_flytekit_is_told_not_to_push(calls, monkeypatch):
    monkeypatch.setenv("FLYTE_PUSH_IMAGE_SPEC", "false")
    image = spec("kept")
    ImageBuildEngine.build(image)
    assert digest_in_registry(image) is None

    monkeypatch.delenv("FLYTE_PUSH_IMAGE_SPEC")
    ImageBuildEngine.build.cache_clear()
    ImageBuildEngine.build(image)
    assert digest_in_registry(image)


@pytest.mark.parametrize(("said", "builder"), [("true", "imagespec"), ("", "default")])
def test_a_setting_makes_it_the_default(said, builder):
    program = "import flytekit; print(flytekit.ImageSpec().builder)"
    env = {**os.environ, "IMAGESPEC_DEFAULT_BUILDER": said}
    found = subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == builder

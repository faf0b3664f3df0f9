"""deploy/Dockerfile and deploy/compose.yaml: what they name is there."""

from __future__ import annotations

import re
import shutil
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from tests.deploy.manifests import DEPLOY, ROOT, compose

TEXT = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
BUILD, FINAL = TEXT.split("\nFROM ")[1:]


def test_what_it_copies_is_in_the_repository_and_reaches_the_build() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}

    assert set(copied()) == sent
    assert [name for name in copied() if not (ROOT / name).exists()] == []


def copied() -> list[str]:
    return [name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", BUILD, re.M) for name in line.split()]


def test_it_installs_extras_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = re.findall(r"EXTRAS[=:](?:-|\$\{EXTRAS:-)?([\w,]+)", TEXT + (DEPLOY / "compose.yaml").read_text("utf-8"))

    assert asked
    assert {extra for one in asked for extra in one.split(",")} <= project["optional-dependencies"].keys()


def test_the_package_is_built_whole_from_what_it_copies(tmp_path: Path) -> None:
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)

    assert shipped(tmp_path) == shipped(ROOT)


def shipped(root: Path) -> set[str]:
    """What a wheel made there holds."""
    builder = WheelBuilder(str(root))
    with builder.config.set_build_data({"force_include": {}, "force_include_editable": {}, "artifacts": []}):
        found = {file.distribution_path for file in builder.recurse_included_files()}
    return {path for path in found if "__pycache__" not in path}


def test_it_runs_as_nobody_special_and_says_how_it_is() -> None:
    user = re.findall(r"^USER (\d+):\d+$", FINAL, re.M)

    assert user == ["10001"]
    assert re.search(r"^HEALTHCHECK .*inference-worker", FINAL, re.M)
    assert 'ENTRYPOINT ["tini", "--", "inference-worker"]' in FINAL


def test_no_secret_is_built_in() -> None:
    assert not re.search(r"(?i)password|secret|token", TEXT)


def test_every_service_of_the_compose_file_is_hardened() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name


def test_the_compose_files_secrets_are_those_that_make_users_makes() -> None:
    text = compose()
    users = re.findall(r"^user (\S+) on", (DEPLOY / "redis" / "users.acl").read_text(), re.M)
    made = {"users.acl", *(f"redis-{user}" for user in users)}

    assert text["secrets"].keys() <= made
    for name, service in text["services"].items():
        assert set(service["secrets"]) <= text["secrets"].keys(), name
        assert set(service["networks"]) <= text["networks"].keys(), name


def test_the_compose_files_redis_is_the_repositorys() -> None:
    [mounted] = [one for one in compose()["services"]["redis"]["volumes"] if one.startswith("./")]

    assert fnmatch(mounted, "./redis/*.conf:/etc/redis/redis.conf:ro")
    assert (DEPLOY / mounted.partition(":")[0]).exists()

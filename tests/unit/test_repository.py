"""Discovery: from a path to the models that are declared there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from inference_worker.models.repository import discover

MANIFEST = 'backend = "python"\n[python]\ncode = "model.py:run"\n'


def add_version(models: Path, name: str, version: str, first_line: str = "") -> Path:
    folder = models / name / version
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(f"{first_line}\n{MANIFEST}")
    return folder


def python_file(folder: Path, text: str, name: str = "mymodel.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def names(path: Path) -> list[str]:
    return [f"{spec.name}:{spec.version}" for spec in discover(path)]


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        discover(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_of_models_is_found_from_each_of_its_levels(tmp_path: Path) -> None:
    add_version(tmp_path, "a", "10")
    add_version(tmp_path, "a", "9")
    add_version(tmp_path, "b", "1")
    assert names(tmp_path) == ["a:9", "a:10", "b:1"]
    assert names(tmp_path / "a") == ["a:9", "a:10"]
    assert names(tmp_path / "b" / "1") == ["b:1"]


def test_versions_with_the_same_alias_are_told_before_any_is_loaded(tmp_path: Path) -> None:
    for version in ("1", "2"):
        add_version(tmp_path, "a", version, 'aliases = ["prod"]')
    assert refusal(tmp_path) == (
        f"{tmp_path}: versions '1' and '2' of model 'a' both have the alias 'prod'; it must lead to one of them"
    )


def test_what_is_broken_outside_of_the_scope_is_passed_over_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_version(tmp_path, "a", "1")
    for version in ("1", "2"):
        add_version(tmp_path, "twins", version, 'aliases = ["prod"]')
    add_version(tmp_path, "half", "1", "backend = ")

    found = discover(tmp_path, scope=lambda name, version, aliases: name == "a")

    assert {spec.name for spec in found} == {"a", "twins"}
    assert "half/1/model.toml" in caplog.text
    assert "both have the alias 'prod'" in caplog.text


def test_a_models_folder_knows_where_it_is_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = add_version(tmp_path, "a", "1")
    monkeypatch.chdir(folder)
    [spec] = discover(Path())
    assert (spec.name, spec.version, spec.folder) == ("a", "1", folder.resolve())


def test_a_python_file_declares_functions_and_classes(tmp_path: Path) -> None:
    path = python_file(
        tmp_path,
        """
from inference_worker import Model, model

@model
def shout(text):
    return [one.upper() for one in text]

@model(name="double", version="2", inputs={"x": "FP32[-1]"}, rows=8)
def f(x):
    return x * 2

class Base(Model):
    pool = "gpu"

class Half(Base):
    version = "1.5"
    def infer(self, batch):
        return batch["x"] / 2

helper = shout
def plain(x):
    return x
""",
    )
    assert names(path) == ["Half:1.5", "double:2", "shout:1"]
    half, double, shout = discover(path)
    assert (half.pool, double.batch.rows, shout.inputs) == ("gpu", 8, ())
    assert double.options == {"code": "mymodel.py:f"}


def test_a_decorated_function_stays_a_function(tmp_path: Path) -> None:
    from inference_worker import model

    assert model(lambda x: x)(3) == 3
    assert model(rows=3)(lambda x: x)(3) == 3


def test_what_a_file_imports_is_not_its_own_model(tmp_path: Path) -> None:
    python_file(tmp_path, "from inference_worker import model\n@model\ndef inner(x):\n    return x\n", "parts.py")
    path = python_file(
        tmp_path,
        "from inference_worker import model\nfrom .parts import inner\n@model\ndef outer(x):\n    return inner(x)\n",
    )
    assert names(path) == ["outer:1"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "mymodel.py declares no model; put @model over a function, or define a subclass of Model"),
        ("\n\nimport nothing_like_this", "mymodel.py:3 cannot be imported: ModuleNotFoundError: No module named"),
        ("def f(:", "mymodel.py:1 cannot be imported: SyntaxError: invalid syntax"),
        ("\nraise SystemExit(0)", "mymodel.py:2 cannot be imported: SystemExit: 0"),
        ("import parts", "No module named 'parts'; the file beside it is imported as '.parts'"),
        (
            "from inference_worker import model\n@model(name='m')\ndef f(x): return x\n"
            "@model(name='m')\ndef g(x): return x\n",
            "mymodel.py: model 'm:1' is declared twice; give one another version",
        ),
        (
            "from inference_worker import model\n@model(rows=0)\ndef f(x): return x\n",
            "mymodel.py: f: batch.rows must be an integer from 1 to 65536; got 0",
        ),
    ],
)
def test_a_file_that_declares_no_models_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    python_file(tmp_path, "", "parts.py")
    assert told in refusal(python_file(tmp_path, text))


def test_a_path_without_models_is_told_with_what_is_expected(tmp_path: Path) -> None:
    expected = "expected a .py file, or a folder of <name>/<version>/model.toml"
    assert refusal(tmp_path) == f"there are no models in {tmp_path}; {expected}"
    assert refusal(tmp_path / "none") == f"there are no models at {tmp_path / 'none'}; {expected}"


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    text = "from inference_worker import model\n@model\ndef {}(x):\n    return x\n"
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        python_file(folder, text.format(folder.name))
    assert names(one / "mymodel.py") + names(two / "mymodel.py") == ["one:1", "two:1"]


def test_finding_models_loads_no_torch_and_the_package_no_numpy(tmp_path: Path) -> None:
    add_version(tmp_path, "a", "1")
    program = (
        "import sys\n"
        "import inference_worker\n"
        "assert 'numpy' not in sys.modules\n"
        "from pathlib import Path\n"
        "from inference_worker.models.repository import discover\n"
        f"discover(Path({str(tmp_path)!r}))\n"
        "assert not {'torch', 'onnxruntime', 'redis'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

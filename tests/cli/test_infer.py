"""`infer`: what goes in, what comes out, and in which exit code it ends. No --broker: a running `up` is found."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import CommandLine


def npy_of(shape: tuple[int, ...]) -> bytes:
    """The head of a .npy file of floats, without them."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros(2))
    return file.getvalue()


def outputs(shell: CommandLine, *arguments: str | Path, stdin: str = "") -> dict[str, object]:
    """What `infer` prints as JSON."""
    done = shell.run("infer", *arguments, "--format", "json", stdin=stdin)
    assert (done.code, done.err) == (0, "")
    answer: dict[str, object] = json.loads(done.out)
    return answer


def test_a_text_is_answered_for_a_person(served: CommandLine) -> None:
    done = served.run("infer", "shout", "--text", "hello")

    answer, times = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert answer == "output []: HELLO"
    assert times.startswith("shout:1, queue ")
    assert times.endswith(" in a batch of 1")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("shout", "--text", "hello"), {"output": "HELLO"}),
        (("shout", "--text", "a", "--text", "b"), {"output": ["A", "B"]}),
        (("shout", "--json", '"hello"'), {"output": "HELLO"}),
        (("shout", "--json", '{"text": ["a", "b"]}'), {"output": ["A", "B"]}),
        (("span", "--json", "[1, 5, 3]"), {"least": 1.0, "most": 5.0}),
        (("span", "--json", '{"x": [[1, 5], [2, 3]]}'), {"least": [1.0, 2.0], "most": [5.0, 3.0]}),
        (("scaled", "--json", "[1, 2]", "--param", "by=3"), {"output": [3.0, 6.0]}),
        (("greet", "--text", "Ada"), {"output": "Hi Ada"}),
        (("greet", "--text", "Ada", "--version", "1"), {"output": "Good day, Ada"}),
        (("greet", "--text", "Ada", "--version", "prod"), {"output": "Good day, Ada"}),
        (("greet", "--text", "Ada", "--tenant", "acme", "--priority", "high"), {"output": "Hi Ada"}),
    ],
)
def test_json_is_for_machines(served: CommandLine, arguments: tuple[str, ...], answer: dict[str, object]) -> None:
    assert outputs(served, *arguments) == answer


def test_json_is_read_from_standard_input(served: CommandLine) -> None:
    assert outputs(served, "span", "--json", "-", stdin="[4, 2]\n") == {"least": 2.0, "most": 4.0}


def test_arrays_go_from_file_to_file(served: CommandLine, tmp_path: Path) -> None:
    x, scaled, strings = tmp_path / "x.npy", tmp_path / "scaled.npy", tmp_path / "strings.npy"
    np.save(x, np.array([[1, 2], [3, 4]], np.float32))

    done = served.run("infer", "scaled", "--npy", x, "--param", "by=2", "--output", scaled)
    named = outputs(served, "span", "--npy", f"x={scaled}")
    loud = served.run("infer", "shout", "--text", "hi", "--text", "you", "--output", strings)

    assert (done.code, done.out, done.err) == (0, "", "")
    np.testing.assert_array_equal(np.load(scaled), [[2, 4], [6, 8]])
    assert named == {"least": [2.0, 6.0], "most": [4.0, 8.0]}
    assert loud.code == 0
    assert np.load(strings).tolist() == ["HI", "YOU"], "readable without pickle"


def test_several_outputs_go_into_one_npz_or_json(served: CommandLine, tmp_path: Path) -> None:
    ask = ("infer", "span", "--json", "[1, 5]", "--output")

    assert served.run(*ask, tmp_path / "y.npz").code == 0
    assert served.run(*ask, tmp_path / "y.json").code == 0
    refused = served.run(*ask, tmp_path / "y.npy")

    arrays = np.load(tmp_path / "y.npz")
    assert {name: arrays[name].item() for name in arrays} == {"least": 1.0, "most": 5.0}
    assert json.loads((tmp_path / "y.json").read_text()) == {"least": 1.0, "most": 5.0}
    assert refused.code == 65
    assert "a .npy file holds one array, and the outputs are least, most; write a .npz" in refused.error


def test_a_known_result_comes_from_the_cache(served: CommandLine) -> None:
    ask = ("infer", "span", "--json", "[7, 8]")

    computed = served.run(*ask)
    known = served.run(*ask)
    anew = served.run(*ask, "--no-cache")

    assert known.out.endswith("span:1, from the cache\n")
    for done in (computed, anew):
        assert done.out.splitlines()[-1].startswith("span:1, queue ")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("shout", "--json", "[1, 2]"), 65, "input 'text' of model 'shout' must be BYTES; got INT64"),
        (("span", "--json", '{"y": 1}'), 65, "model 'span' takes the inputs x; got y"),
        (("sh out", "--text", "x"), 65, "model must be 1 to 128 letters, digits, '.', '_' or '-'"),
        (("nobody", "--text", "x"), 66, "no model 'nobody' is served here; there is greet, root, scaled, shout, span"),
        (("greet", "--text", "x", "--version", "3"), 66, "no version '3' here; there is 1 (prod), 2 (canary)"),
        (("root", "--json", "-1.0"), 1, "ValueError: a negative number has no real root"),
        (("shout",), 2, "give one of --text, --json or --npy; got none (see inference-worker infer --help)"),
        (("shout", "--text", "x", "--json", "1"), 2, "give one of --text, --json or --npy; got --text and --json"),
        (("shout", "--json", "{"), 2, "Invalid value for --json: is not JSON: Expecting property name"),
        (("shout", "--npy", "no.npy"), 2, "Invalid value for --npy: no.npy: No such file or directory"),
        (("shout", "--text", "x", "--param", "by"), 2, "Invalid value for --param: must be NAME=JSON; got 'by'"),
        (("shout", "--text", "x", "-o", "y.csv"), 2, "Invalid value for --output: must end in .npy, .npz, .json; got"),
        (("shout", "--text", "x", "-o", "no/y.npy"), 74, "no/y.npy: No such file or directory"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    served: CommandLine, arguments: tuple[str, ...], code: int, told: str
) -> None:
    done = served.run("infer", *arguments)

    assert (done.code, done.out) == (code, "")
    assert done.error.startswith("inference-worker: ")
    assert told in done.error


def test_a_pool_without_workers_is_told_of_at_once_and_again_when_the_time_is_over(served: CommandLine) -> None:
    done = served.run("infer", "shout", "--text", "x", "--pool", "empty", "--timeout", "0.3")

    assert (done.code, done.out) == (75, "")
    warned, failed = done.err.splitlines()
    assert "pool 'empty' has no worker: requests wait there" in warned
    assert "within 0.3 s: pool 'empty' had no" in failed


def test_an_answer_that_takes_too_long_is_no_more_waited_for(served: CommandLine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    done = served.run("infer", "waits", "--text", str(gate), "--timeout", "0.5")
    gate.touch()

    assert done.code == 75
    assert "model 'waits' did not answer within 0.5 s" in done.error


def test_a_broker_that_does_not_run_is_told_at_once_with_what_to_do(shell: CommandLine) -> None:
    began = time.monotonic()

    done = shell.run("infer", "shout", "--text", "x", "--broker", "redis://:secret@127.0.0.1:1")

    assert done.code == 69
    assert time.monotonic() - began < 20
    assert done.error.startswith("inference-worker: no broker answers at redis://:***@127.0.0.1:1 (")
    assert done.error.endswith(
        "start one by `inference-worker up`, or name yours by --broker or INFERENCE_WORKER_BROKER"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "x.npy holds no plain array: No data left in file"),
        (b"PK\x03\x04", "x.npy holds no plain array: File is not a zip file"),
        (npy_of((10**14,)), "x.npy holds no plain array: Unable to allocate"),
        (npz(), "x.npy holds several arrays; save each as .npy"),
    ],
)
def test_a_file_that_holds_no_array_is_a_wrong_argument_and_no_interrupt(
    shell: CommandLine, content: bytes, told: str
) -> None:
    (shell.folder / "x.npy").write_bytes(content)

    done = shell.run("infer", "span", "--npy", "x.npy")

    assert done.code == 2
    assert told in done.error


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (("--json", "-"), "[" * 100_000, "Invalid value for --json: nests too deeply"),
        (("--json", "9" * 5000), "", "Invalid value for --json: is not JSON: Exceeds the limit (4300 digits)"),
        (("--text", "x", "--param", "by=" + "[" * 50_000), "", "Invalid value for --param: nests too deeply"),
    ],
)
def test_json_that_python_cannot_hold_is_told_as_such(
    shell: CommandLine, arguments: tuple[str, ...], stdin: str, told: str
) -> None:
    done = shell.run("infer", "span", *arguments, stdin=stdin)

    assert done.code == 2
    assert told in done.error


def test_files_of_objects_are_refused(served: CommandLine, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)

    done = served.run("infer", "span", "--npy", tmp_path / "x.npy")

    assert done.code == 2
    assert "x.npy holds no plain array: Object arrays cannot be loaded" in done.error

"""Checks of a model repository: each manifest, the files it names, their digest, and whose code would run.

Nothing is loaded, and of a repository at a URL only the manifests are fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.errors import InferenceError
from common.text import describe
from inference_worker.backends.pipeline import files_of
from inference_worker.cli.doctor.finding import Finding, error, well
from inference_worker.models.repository import discover, models_at
from inference_worker.models.spec import MANIFEST, ModelSpec
from inference_worker.models.trust import check_trust
from inference_worker.models.weights import PACKAGE, digest, resolve
from inference_worker.remote.location import is_url

#: What in a backend's table names a file of the model's folder.
_FILES = ("code", "file", "weights")


def findings(place: str) -> Iterator[Finding]:
    """One for each model there, or for what is wrong with all of them together."""
    broken = False
    for folder in _versions(place):
        for finding in _found(str(folder), f"model {folder.parent.name}:{folder.name}"):
            broken = broken or bool(finding.severity)
            yield finding
    if not _versions(place):
        yield from _found(place, f"models at {place}")
    elif not broken:
        # Each is sound; whether they go together, such as by their aliases, only all of them tell.
        yield from (one for one in _found(place, f"models at {place}") if one.severity)


def check(spec: ModelSpec) -> Finding:
    name = f"model {spec.name}:{spec.version}"
    try:
        check_trust(spec)
        if spec.origin.snapshot is not None:
            return well(name, f"for pool '{spec.pool}'; its files are verified when they are fetched")
        for reference in _named(spec):
            resolve(reference, spec.folder)
        files = list(files_of(spec))
        return well(name, f"{len(files)} files, digest {digest(files)[:12]}, for pool '{spec.pool}'")
    except InferenceError as wrong:
        return _wrong(name, wrong.message)
    except OSError as wrong:
        return _wrong(name, describe(wrong))


def _versions(place: str) -> list[Path]:
    """The folders of models' versions in a local repository; none for a Python file or a URL."""
    root = Path(place)
    if is_url(place) or not root.is_dir():
        return []
    patterns = (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}")
    found = next((found for pattern in patterns if (found := sorted(root.glob(pattern)))), [])
    return [manifest.parent.resolve() for manifest in found]


def _found(place: str, name: str) -> Iterator[Finding]:
    """Of a version's folder alone, so that one that is broken hides none of the others; or of a whole place."""
    try:
        specs = models_at(place) if is_url(place) else discover(Path(place))
    except InferenceError as wrong:
        yield _wrong(name, wrong.message)
        return
    yield from map(check, specs)


def _named(spec: ModelSpec) -> Iterator[str]:
    for key in _FILES:
        reference = spec.options.get(key)
        if isinstance(reference, str) and not reference.startswith(PACKAGE) and "." in reference:
            yield reference.partition(":")[0]


def _wrong(name: str, message: str) -> Finding:
    return error(name, message, "workers do not start with it", "mend it; `inference-worker models check` loads it")

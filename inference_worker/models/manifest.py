"""A model's declaration, in model.toml or in Python, to a checked ModelSpec. Reads no file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from common.names import check_name, check_pool, shorten
from common.protocol import MAX_TENSORS
from common.tensor import DTYPES, MAX_DIMENSION, MAX_RANK
from common.tomlfile import TomlFile
from inference_worker.backends import BACKENDS
from inference_worker.models.spec import MAX_ROWS, STAGES, BatchLimits, ModelSpec, Residence, StageLimits, TensorSpec
from inference_worker.models.tables import TABLE, Kind, Table

MAX_PADDED = 2**31 - 1
#: More threads or processes of one stage than a host has cores.
MAX_WORKERS = 256
#: Longer is no linger but a halt.
MAX_LINGER_MS = 60_000
#: Thirty years: what is kept for ever, within Redis's own bound.
MAX_SECONDS = 10**9

_TENSOR = re.compile(r"([A-Z0-9]+)\[((?:-?\d{1,12}(?:, *-?\d{1,12})*)?)\]")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kMG]i?)?B")
_SIZE_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_DEVICE = re.compile(r"cpu|cuda(:\d{1,4})?")
#: What a backend may be told to compute in.
RUNTIME_DTYPES = ("fp32", "fp16", "bf16", "int8")
_CODE = re.compile(r"[^:]+\.py:[A-Za-z_]\w*")
#: The rows are one more dimension.
_MOST_DIMENSIONS = MAX_RANK - 1
#: Keys that Python declares beside the others, and model.toml in its table [batch].
_BATCH_KEYS = ("rows", "padded", "bytes", "target_ms", "linger_ms", "pad")


def _amount(unit: str, most: int) -> Kind:
    """A number of `unit` from 0 to `most`, which NaN is not."""
    return Kind(
        f"a number of {unit} from 0 to {most}",
        lambda value: isinstance(value, (int, float)) and type(value) is not bool and 0 <= value <= most,
    )


def _count(most: int) -> Kind:
    return Kind(f"an integer from 1 to {most}", lambda value: type(value) is int and 1 <= value <= most)


def _is_strings(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def _is_fillings(value: object) -> bool:
    return isinstance(value, Mapping) and all(type(one) in (int, float) for one in value.values())


def _is_dimensions(value: object) -> bool:
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        return False
    return all(type(one) is int and -1 <= one <= MAX_DIMENSION for one in value)


TEXT = Kind("a string that is not empty", lambda value: isinstance(value, str) and value != "")
COUNT = Kind("an integer from 1", lambda value: type(value) is int and value >= 1)
WORKERS = Kind(f"an integer from 0 to {MAX_WORKERS}", lambda value: type(value) is int and 0 <= value <= MAX_WORKERS)
ROWS = _count(MAX_ROWS)
PADDED = _count(MAX_PADDED)
SECONDS = _amount("seconds", MAX_SECONDS)
TIMEOUT = Kind("a number of seconds above 0", lambda value: SECONDS.holds(value) and value > 0)
MILLISECONDS = _amount("milliseconds", MAX_LINGER_MS)
TARGET = Kind("a number of milliseconds above 0", lambda value: MILLISECONDS.holds(value) and value != 0)
FLAG = Kind("true or false", lambda value: type(value) is bool)
STRINGS = Kind("a list of strings", _is_strings)
FILLINGS = Kind("a table of array names and numbers", _is_fillings)
DIMENSIONS = Kind(
    f"a list of at most {_MOST_DIMENSIONS} integers from -1 (any size) to {MAX_DIMENSION}", _is_dimensions
)
DTYPE = Kind(f"one of {', '.join(DTYPES)}", lambda value: isinstance(value, str) and value in DTYPES)
BACKEND = Kind(f"one of {', '.join(BACKENDS)}", lambda value: isinstance(value, str) and value in BACKENDS)
CODE = Kind("of the form 'file.py:Name'", lambda value: isinstance(value, str) and bool(_CODE.fullmatch(value)))
SIZE = Kind("a size above 0 such as '500MB' or '1.5GiB'", lambda value: isinstance(value, str) and _bytes(value) > 0)
DEVICE = Kind("cpu, cuda or cuda:N", lambda value: isinstance(value, str) and bool(_DEVICE.fullmatch(value)))
RUNTIME_DTYPE = Kind(
    f"one of {', '.join(RUNTIME_DTYPES)}", lambda value: isinstance(value, str) and value in RUNTIME_DTYPES
)
_OPTION_KINDS = {
    "code": CODE,
    "arguments": TABLE,
    "dtype": RUNTIME_DTYPE,
    "compile": FLAG,
    "channels_last": FLAG,
}


def parse_toml(text: str, file: str, name: str, version: str, folder: Path) -> ModelSpec:
    """The model that `text` declares; `file` names it in errors. Raises ConfigError with file, line and key."""
    source = TomlFile(file, text)
    return _parse(Table(source, "", source.read()), name, version, folder)


def parse_declaration(declared: Mapping[str, Any], file: str, code: str, folder: Path) -> ModelSpec:
    """The model that Python code declares, as `code` in `folder`. Raises ConfigError with file and key."""
    source = TomlFile(file)
    values = {"backend": "python", "python": {"code": code}, **declared}
    name, version = values.pop("name"), values.pop("version", "1")
    for key in ("inputs", "outputs"):
        if key in values:
            values[key] = _tensor_tables(source, key, values[key])
    values["batch"] = {key: values.pop(key) for key in _BATCH_KEYS if key in values}
    return _parse(Table(source, "", values), name, version, folder)


def _parse(table: Table, name: str, version: str, folder: Path) -> ModelSpec:
    backend = table.take("backend", BACKEND)
    spec = ModelSpec(
        name=table.check("name", check_name, "a model's name", name),
        version=table.check("version", check_name, "a version", version),
        backend=backend,
        pool=table.check("pool", check_pool, table.take("pool", TEXT, DEFAULT_POOL)),
        inputs=_tensors(table, "inputs"),
        outputs=_tensors(table, "outputs"),
        batch=_batch(table.table("batch")),
        cache_ttl_s=float(table.take("cache_ttl", SECONDS, 0.0)),
        aliases=_aliases(table, version),
        deterministic=table.take("deterministic", FLAG, True),
        check_finite=table.take("check_finite", FLAG, False),
        timeout_s=None if (timeout := table.take("timeout", TIMEOUT, None)) is None else float(timeout),
        residence=_residence(table.table("placement")),
        folder=folder,
        options=_options(table.table(backend), BACKENDS[backend].options),
        processing=_processing(table),
        stages=_stages(table.table("stages")),
        sample=dict(table.take("sample", TABLE, {})),
    )
    table.end()
    _check_sample(table, spec)
    _check_stages(table, spec)
    if spec.cache_ttl_s and not spec.deterministic:
        raise table.wrong(
            "cache_ttl",
            f"must be 0 where deterministic is false; got {spec.cache_ttl_s:g}: "
            "a cached result would stand for others that the same inputs give",
        )
    return spec


def _tensor_tables(source: TomlFile, key: str, declared: object) -> list[dict[str, Any]]:
    """`{"x": "FP32[-1, 3]"}` in the form of model.toml."""
    if not isinstance(declared, Mapping):
        raise source.wrong(key, f"must map names to forms such as 'FP32[-1]' or 'BYTES[]'; got {shorten(declared)}")
    return [_tensor_table(source, key, name, form) for name, form in declared.items()]


def _tensor_table(source: TomlFile, key: str, name: str, form: object) -> dict[str, Any]:
    match = _TENSOR.fullmatch(form) if isinstance(form, str) else None
    if match is None:
        raise source.wrong(f"{key}.{name}", f"must have a form such as 'FP32[-1]' or 'BYTES[]'; got {shorten(form)}")
    return {"name": name, "dtype": match[1], "shape": [int(size) for size in match[2].split(",") if size]}


def _tensors(table: Table, key: str) -> tuple[TensorSpec, ...]:
    tensors = tuple(_tensor(one) for one in table.tables(key))
    if len(tensors) > MAX_TENSORS:
        raise table.wrong(key, f"must be at most {MAX_TENSORS}; got {len(tensors)}")
    names = [tensor.name for tensor in tensors]
    for name in names:
        if names.count(name) > 1:
            raise table.wrong(key, f"must have names that differ; '{name}' is there {names.count(name)} times")
    return tensors


def _tensor(table: Table) -> TensorSpec:
    name = table.check("name", check_name, "a tensor's name", table.take("name", TEXT))
    tensor = TensorSpec(name, table.take("dtype", DTYPE), tuple(table.take("shape", DIMENSIONS)))
    table.end()
    return tensor


def _batch(table: Table) -> BatchLimits:
    default = BatchLimits()
    limits = BatchLimits(
        rows=table.take("rows", ROWS, default.rows),
        padded=table.take("padded", PADDED, default.padded),
        bytes=_size(table, "bytes"),
        target_ms=table.take("target_ms", TARGET, default.target_ms),
        linger_ms=float(table.take("linger_ms", MILLISECONDS, default.linger_ms)),
        pad=dict(table.take("pad", FILLINGS, default.pad)),
    )
    table.end()
    if limits.padded is not None and not limits.pad:
        raise table.wrong("padded", "counts the elements of the arrays in batch.pad; name at least one there")
    return limits


def _residence(table: Table) -> Residence:
    residence = Residence(
        device=table.take("device", DEVICE, None),
        replicas=table.take("replicas", COUNT, None),
        memory=_size(table, "memory"),
        pinned=table.take("pinned", FLAG, False),
    )
    table.end()
    return residence


def _size(table: Table, key: str) -> int | None:
    text = table.take(key, SIZE, None)
    return None if text is None else parse_size(text)


def parse_size(text: str) -> int:
    """Bytes of a size such as "500MB" (decimal) or "1.5GiB" (binary), from 1 on. Raises ConfigError."""
    size = _bytes(text)
    if not size:
        raise ConfigError(f"a size must be above 0 and have a form such as '500MB' or '1.5GiB'; got {shorten(text)}")
    return size


def _bytes(text: str) -> int:
    """0 for what is no size."""
    found = _SIZE.fullmatch(text)
    return int(Decimal(found[1]) * _SIZE_UNITS[found[2] or ""]) if found else 0


def _aliases(table: Table, version: str) -> tuple[str, ...]:
    """Labels of this version, in the form of one: what asks for a version asks for an alias as well."""
    aliases = tuple(
        table.check("aliases", check_name, "an alias", alias) for alias in table.take("aliases", STRINGS, ())
    )
    if version in aliases:
        raise table.wrong("aliases", f"holds '{version}', which is the version itself")
    return tuple(dict.fromkeys(aliases))


def _options(table: Table, known: tuple[str, ...] | None) -> dict[str, Any]:
    """A backend's own table. Where the backend lists no options it takes `code` and what its model wants to know."""
    if known is None:
        return {"code": table.take("code", CODE), **table.take_rest()}
    options = {key: table.take(key, _OPTION_KINDS.get(key, TEXT), None) for key in known}
    table.end()
    return {key: value for key, value in options.items() if value is not None}


def _processing(table: Table) -> dict[str, Any]:
    """The stages around the backend: their code, and what that wants to know."""
    inner = table.table("processing")
    return {} if inner.empty else {"code": inner.take("code", CODE), **inner.take_rest()}


def _stages(table: Table) -> dict[str, StageLimits]:
    """Those with workers; the others run in line."""
    stages = {name: _stage(table.table(name)) for name in STAGES}
    table.end()
    return {name: limits for name, limits in stages.items() if limits.workers}


def _stage(table: Table) -> StageLimits:
    limits = StageLimits(table.take("workers", WORKERS, 0), table.take("processes", FLAG, False))
    table.end()
    if limits.processes and not limits.workers:
        raise table.wrong("processes", "needs workers: as many processes as that says")
    return limits


def _check_stages(table: Table, spec: ModelSpec) -> None:
    if "code" in spec.processing:
        return
    for name, limits in spec.stages.items():
        if spec.backend != "python":
            raise table.wrong(f"stages.{name}", "has workers, and no processing.code defines that stage")
        if limits.processes:
            raise table.wrong(
                f"stages.{name}.processes", "needs processing.code: a stage's process loads that, and not the model"
            )


def _check_sample(table: Table, spec: ModelSpec) -> None:
    names = [one.name for one in spec.inputs]
    if spec.sample and names and spec.sample.keys() != set(names):
        raise table.wrong("sample", f"must hold the inputs {', '.join(names)}; got {', '.join(spec.sample)}")

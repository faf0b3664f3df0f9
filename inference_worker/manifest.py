"""A model's declaration, in model.toml or in Python, to a checked ModelSpec. Reads no file."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.keys import DEFAULT_POOL
from common.names import check_name, check_pool, shorten
from common.tensor import DTYPES, MAX_RANK
from inference_worker.backends import BACKENDS
from inference_worker.spec import BatchLimits, ModelSpec, TensorSpec
from inference_worker.tables import TABLE, Kind, Source, Table

_TENSOR = re.compile(r"([A-Z0-9]+)\[((?:-?\d+(?:, *-?\d+)*)?)\]")
_CODE = re.compile(r"[^:]+\.py:[A-Za-z_]\w*")
#: The rows are one more dimension.
_MOST_DIMENSIONS = MAX_RANK - 1
#: Keys that Python declares beside the others, and model.toml in its table [batch].
_BATCH_KEYS = ("rows", "padded", "linger_ms", "pad")


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and 0 <= value < math.inf


def _is_strings(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)


def _is_fillings(value: object) -> bool:
    return isinstance(value, Mapping) and all(type(one) in (int, float) for one in value.values())


def _is_dimensions(value: object) -> bool:
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        return False
    return all(type(one) is int and one >= -1 for one in value)


TEXT = Kind("a string that is not empty", lambda value: isinstance(value, str) and value != "")
COUNT = Kind("an integer from 1", lambda value: type(value) is int and value >= 1)
SECONDS = Kind("a number of seconds from 0", _is_amount)
MILLISECONDS = Kind("a number of milliseconds from 0", _is_amount)
FLAG = Kind("true or false", lambda value: type(value) is bool)
STRINGS = Kind("a list of strings", _is_strings)
FILLINGS = Kind("a table of array names and numbers", _is_fillings)
DIMENSIONS = Kind(f"a list of at most {_MOST_DIMENSIONS} integers from -1 (any size)", _is_dimensions)
DTYPE = Kind(f"one of {', '.join(DTYPES)}", lambda value: isinstance(value, str) and value in DTYPES)
BACKEND = Kind(f"one of {', '.join(BACKENDS)}", lambda value: isinstance(value, str) and value in BACKENDS)
CODE = Kind("of the form 'file.py:Name'", lambda value: isinstance(value, str) and bool(_CODE.fullmatch(value)))
_OPTION_KINDS = {"code": CODE, "arguments": TABLE}


def parse_toml(text: str, file: str, name: str, version: str, folder: Path) -> ModelSpec:
    """The model that `text` declares; `file` names it in errors. Raises ConfigError with file, line and key."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: this is not TOML: {error}") from error
    return _parse(Table(Source(file, text), "", values), name, version, folder)


def parse_declaration(declared: Mapping[str, Any], file: str, code: str, folder: Path) -> ModelSpec:
    """The model that Python code declares, as `code` in `folder`. Raises ConfigError with file and key."""
    source = Source(file)
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
        check_finite=table.take("check_finite", FLAG, False),
        folder=folder,
        options=_options(table.table(backend), BACKENDS[backend].options),
        processing=_processing(table),
        sample=dict(table.take("sample", TABLE, {})),
    )
    table.end()
    _check_sample(table, spec)
    return spec


def _tensor_tables(source: Source, key: str, declared: object) -> list[dict[str, Any]]:
    """`{"x": "FP32[-1, 3]"}` in the form of model.toml."""
    if not isinstance(declared, Mapping):
        raise source.wrong(key, f"must map names to forms such as 'FP32[-1]' or 'BYTES[]'; got {shorten(declared)}")
    return [_tensor_table(source, key, name, form) for name, form in declared.items()]


def _tensor_table(source: Source, key: str, name: str, form: object) -> dict[str, Any]:
    match = _TENSOR.fullmatch(form) if isinstance(form, str) else None
    if match is None:
        raise source.wrong(f"{key}.{name}", f"must have a form such as 'FP32[-1]' or 'BYTES[]'; got {shorten(form)}")
    return {"name": name, "dtype": match[1], "shape": [int(size) for size in match[2].split(",") if size]}


def _tensors(table: Table, key: str) -> tuple[TensorSpec, ...]:
    tensors = tuple(_tensor(one) for one in table.tables(key))
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
        rows=table.take("rows", COUNT, default.rows),
        padded=table.take("padded", COUNT, default.padded),
        linger_ms=float(table.take("linger_ms", MILLISECONDS, default.linger_ms)),
        pad=dict(table.take("pad", FILLINGS, default.pad)),
    )
    table.end()
    if limits.padded is not None and not limits.pad:
        raise table.wrong("padded", "counts the elements of the arrays in batch.pad; name at least one there")
    return limits


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


def _check_sample(table: Table, spec: ModelSpec) -> None:
    names = [one.name for one in spec.inputs]
    if spec.sample and names and spec.sample.keys() != set(names):
        raise table.wrong("sample", f"must hold the inputs {', '.join(names)}; got {', '.join(spec.sample)}")

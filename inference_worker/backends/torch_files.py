"""Files of torch: exported programs, TorchScript, and weights; mapped rather than copied, so that processes share them.

A page of a mapped file is in memory once, however many processes read it. Two models with one file share it too.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from inference_worker.backends.base import Context, readable
from inference_worker.devices.accelerator import Accelerator
from inference_worker.models.residency import give_back

#: Missing weights that an error lists; a wrong file lacks hundreds.
_MOST_LISTED = 3
#: Where a .pt2 archive (torch 2.8 and later) says which of its records holds which weight.
_WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
#: Of a record's header in a zip archive: its fixed part, and in it the lengths of the name and of the extra field.
_ZIP_HEADER, _ZIP_LENGTHS = 30, slice(26, 30)
#: One program is read at a time: torch traces meanwhile, and Python's filter of warnings is one for all threads.
_reading = Lock()


def load_weights(module: nn.Module, reference: str, path: Path) -> None:
    """Put the file's tensors in the module's place, mapped.

    What the file holds beside is passed over, such as the head of another task; what it lacks is an error.
    """
    with readable(reference):
        state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_state_dict(path)
        missing = module.load_state_dict(state, strict=False, assign=True).missing_keys
    if missing:
        more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
        raise ConfigError(f"'{reference}' lacks the weights {', '.join(missing[:_MOST_LISTED])}{more}")


def open_file(context: Context, accelerator: Accelerator) -> tuple[Any, list[str]]:
    """(what runs, the names of its arguments) of `torch.file`"""
    reference = context.spec.options["file"]
    path = context.path(reference)
    opens = {".pt2": _open_exported, ".pt": _open_script}.get(path.suffix)
    if opens is not None:
        with _reading:
            return opens(reference, path, accelerator)
    raise ConfigError(f"torch.file must end in .pt2 (torch.export) or .pt (TorchScript); got '{reference}'")


def mapped_weights(path: Path, loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the `loaded` weights of a .pt2 file that can be had as views of the file itself.

    torch.export.load copies them all. Only what is bit by bit the same is taken; a file of another layout gives none.
    """
    storage = cast(Any, torch.UntypedStorage).from_file(str(path), shared=False, nbytes=path.stat().st_size)
    views = ((name, _view(storage, offset, loaded[name])) for name, offset in _records(path) if name in loaded)
    return {name: view for name, view in views if view is not None and torch.equal(view, loaded[name])}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        # What torch advises is to let the file run code.
        raise ConfigError(
            f"'{path.name}' is no state dict of tensors alone, and a pickle of anything else could run code; "
            "write `safetensors.torch.save_file(module.state_dict(), ...)` and name that .safetensors file instead"
        ) from error
    return state


def _open_exported(reference: str, path: Path, accelerator: Accelerator) -> tuple[Any, list[str]]:
    # A second of imports that other kinds of models do without.
    from torch.export import load
    from torch.export.passes import move_to_device_pass

    with readable(reference):
        program = load(path)
    arguments = [str(name) for name in program.graph_signature.user_inputs]
    if accelerator.device.type != "cpu":
        program = move_to_device_pass(program, accelerator.device)
    module = program.module()
    if accelerator.device.type == "cpu":
        module.load_state_dict(mapped_weights(path, module.state_dict()), strict=False, assign=True)
        del program
        give_back()
    return accelerator.place(module), arguments


def _open_script(reference: str, path: Path, accelerator: Accelerator) -> tuple[Any, list[str]]:
    with readable(reference), warnings.catch_warnings():
        # torch asks authors to export to .pt2 instead. Whoever has only the .pt can still serve it.
        warnings.simplefilter("ignore", DeprecationWarning)
        module = cast(Any, torch.jit.load)(path, map_location="cpu")
    arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
    return accelerator.place(module.eval()), arguments


def _records(path: Path) -> Iterator[tuple[str, int]]:
    """(a weight's name, where its bytes begin in the file)"""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        places = {one.filename.partition("/")[2]: one for one in archive.infolist() if one.compress_type == 0}
        if _WEIGHTS_CONFIG not in places:
            return
        config = json.loads(archive.read(places[_WEIGHTS_CONFIG]))["config"]
        for name, one in config.items():
            place = places.get(f"data/weights/{one['path_name']}")
            if place is not None and not one["use_pickle"]:
                file.seek(place.header_offset)
                lengths = file.read(_ZIP_HEADER)[_ZIP_LENGTHS]
                inner = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
                yield name, place.header_offset + _ZIP_HEADER + inner


def _view(storage: torch.UntypedStorage, offset: int, like: Tensor) -> Tensor | None:
    """`like`'s shape and dtype over the storage from `offset` on; None where that is not possible."""
    if offset % like.element_size() or not like.is_contiguous() or offset + like.nbytes > storage.nbytes():
        return None
    empty = torch.empty(0, dtype=like.dtype)
    return empty.set_(cast(Any, storage), offset // like.element_size(), like.shape, like.stride())

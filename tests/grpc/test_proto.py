"""The proto file, the code that is generated from it, and Triton's own descriptors: they agree field by field."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc_tools", reason="needs grpcio-tools")

from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

ROOT = Path(__file__).parents[2]
#: What is answered has fewer fields here than Triton's has; all others have every one.
FEWER = {"ModelConfig", "ModelInput", "ModelOutput", "ModelVersionPolicy", "ModelDynamicBatching"}
#: In a process of its own: in this one tritonclient's messages have the same names.
DUMP = (
    "import sys; from gateway.grpc.pb import inference_pb2 as pb; sys.stdout.buffer.write(pb.DESCRIPTOR.serialized_pb)"
)


def without_json_names(file: Any) -> Any:
    """The compiler writes them, generated code does not hold them."""
    for message in every(file.message_type):
        for field in message.field:
            field.ClearField("json_name")
    return file


def every(messages: Iterable[Any]) -> Iterator[Any]:
    for one in messages:
        yield one
        yield from every(one.nested_type)


def named(messages: Iterable[Any], inside: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in messages:
        found |= {inside + one.name: one, **named(one.nested_type, f"{inside}{one.name}.")}
    return found


def fields(message: Any) -> dict[str, tuple[Any, ...]]:
    """What goes over the wire, by name; `oneof` by its name."""
    return {
        one.name: (
            one.number, one.type, one.label, one.type_name,
            message.oneof_decl[one.oneof_index].name if one.HasField("oneof_index") else None,
        )
        for one in message.field
    }  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """inference.proto, compiled now."""
    out = tmp_path_factory.mktemp("proto") / "set"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-Igateway/grpc/pb=gateway/grpc", f"--descriptor_set_out={out}",
         "gateway/grpc/pb/inference.proto"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    [file] = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return without_json_names(file)


@pytest.fixture(scope="module")
def tritons() -> dict[str, Any]:
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(one.DESCRIPTOR.serialized_pb)
        for one in (service_pb2, model_config_pb2)
    ]
    return {name: one for file in files for name, one in named(file.message_type).items()}


def test_the_generated_code_is_of_this_proto_file(ours: Any) -> None:
    dumped = subprocess.run([sys.executable, "-c", DUMP], cwd=ROOT, check=True, capture_output=True).stdout

    generated = without_json_names(descriptor_pb2.FileDescriptorProto.FromString(dumped))

    assert generated == ours, "run `make proto`"


def test_every_message_has_tritons_names_numbers_and_types(ours: Any, tritons: dict[str, Any]) -> None:
    assert ours.package == "inference"
    for name, message in named(ours.message_type).items():
        mine, theirs = fields(message), fields(tritons[name])
        assert mine == (theirs if name not in FEWER else {one: theirs[one] for one in mine}), name


def test_no_message_of_tritons_service_is_missing(ours: Any) -> None:
    theirs = descriptor_pb2.FileDescriptorProto.FromString(service_pb2.DESCRIPTOR.serialized_pb)

    assert set(named(theirs.message_type)) <= set(named(ours.message_type))
    [mine], [other] = ours.service, theirs.service
    assert {one.name: describe(one) for one in mine.method} == {one.name: describe(one) for one in other.method}


def test_data_types_have_tritons_numbers(ours: Any) -> None:
    [mine] = ours.enum_type

    assert {one.name: one.number for one in mine.value} == dict(model_config_pb2.DataType.items())


def describe(method: Any) -> tuple[Any, ...]:
    return method.input_type, method.output_type, method.client_streaming, method.server_streaming

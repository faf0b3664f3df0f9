"""Echo over the gRPC door beside a bare grpc.aio handler of the same messages: rates, latencies, CPU.

python -m benchmarks.grpc [--requests N] [--channels N] [--rounds N]

The gateway's CPU is that of its processes, by the kernel's clock; Redis and the worker are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import grpc
import grpc.aio

from benchmarks.harness import ROOT, cpu_seconds, percentile, table, workers
from benchmarks.http import VECTOR, Figures, free_port, served
from common.embedded import EmbeddedRedis
from common.keys import DEFAULT_POOL
from gateway.grpc.pb import inference_pb2 as pb

BARE = """
import asyncio, sys, grpc, grpc.aio, uvloop
from gateway.grpc.pb import inference_pb2 as pb
async def echo(request, context):
    response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    for one in request.inputs:
        response.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
    response.raw_output_contents.extend(request.raw_input_contents)
    return response
async def main():
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        echo, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelInfer": handler}),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()
uvloop.run(main())
"""
_SERVICE = "/inference.GRPCInferenceService"
#: Requests under way on each channel.
WIDTH = 8

REQUEST = pb.ModelInferRequest(
    model_name="echo",
    inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=VECTOR.shape)],
    raw_input_contents=[VECTOR.tobytes()],
).SerializeToString()

Asker = Callable[[grpc.aio.Channel, int, list[float]], Awaitable[object]]


class Kind(NamedTuple):
    """One way to ask; `ask` sends so many requests on a channel, and appends what each took."""

    name: str
    ask: Asker
    port: int
    pid: int


async def calls(channel: grpc.aio.Channel, requests: int, seconds: list[float]) -> None:
    infer = channel.unary_unary(f"{_SERVICE}/ModelInfer")

    async def some() -> None:
        for _ in range(requests // WIDTH):
            started = time.perf_counter()
            await infer(REQUEST)
            seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(some() for _ in range(WIDTH)))


async def stream(channel: grpc.aio.Channel, requests: int, seconds: list[float]) -> None:
    """As many under way as with calls: an answer lets the next request go."""
    free, started = asyncio.Semaphore(WIDTH), list[float]()

    async def sent() -> AsyncIterator[bytes]:
        for _ in range(requests):
            await free.acquire()
            started.append(time.perf_counter())
            yield REQUEST

    answered = 0
    async for _ in channel.stream_stream(f"{_SERVICE}/ModelStreamInfer")(sent()):
        # All are alike, so that which one it is makes no difference.
        seconds.append(time.perf_counter() - started[answered])
        answered += 1
        free.release()


async def load(kind: Kind, requests: int, channels: int) -> Figures:
    opened = [
        grpc.aio.insecure_channel(f"127.0.0.1:{kind.port}", options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(channels)
    ]
    seconds: list[float] = []
    await asyncio.gather(*(kind.ask(one, 10 * WIDTH, []) for one in opened))
    cpu, started = cpu_seconds(kind.pid), time.perf_counter()
    await asyncio.gather(*(kind.ask(one, requests // channels, seconds) for one in opened))
    elapsed, cpu = time.perf_counter() - started, cpu_seconds(kind.pid) - cpu
    await asyncio.gather(*(one.close() for one in opened))
    return Figures(
        len(seconds) / elapsed, percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3,
        cpu / len(seconds) * 1e6,
    )  # fmt: skip


async def measure(kinds: list[Kind], rounds: int, requests: int, channels: int) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {kind.name: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            found[kind.name].append(await load(kind, requests, channels))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bare_port, port = free_port(), free_port()
    gateway = [sys.executable, "-m", "inference_worker.cli", "gateway", "--grpc", f":{port}", "--notice", "0"]
    with (
        EmbeddedRedis() as server,
        workers(server.url, DEFAULT_POOL, str(ROOT / "examples" / "echo.py"), options=("--device", "cpu")),
        served([sys.executable, "-c", BARE, str(bare_port)], bare_port) as bare_pid,
        served([*gateway, "--broker", server.url], port) as pid,
    ):
        kinds = [
            Kind("bare grpc.aio echo", calls, bare_port, bare_pid),
            Kind("gRPC calls", calls, port, pid),
            Kind("gRPC streams", stream, port, pid),
        ]
        found = asyncio.run(measure(kinds, options.rounds, options.requests, options.channels))
    _print(found, options.channels)


def _print(found: dict[str, list[Figures]], channels: int) -> None:
    medians = {name: Figures(*map(statistics.median, zip(*rounds, strict=True))) for name, rounds in found.items()}
    bare = medians["bare grpc.aio echo"].cpu_us
    rows = [
        [name, f"{one.per_second:,.0f}", f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.cpu_us:.0f}",
         f"{one.cpu_us / bare:.1f}"]
        for name, one in medians.items()
    ]  # fmt: skip
    heads = ["echo of 1.5 KB over gRPC", "requests/s", "p50 ms", "p99 ms", "server's CPU µs", "of the bare one"]
    table(f"{channels} channels with {WIDTH} requests each, medians of interleaved rounds", heads, rows)


if __name__ == "__main__":
    main()

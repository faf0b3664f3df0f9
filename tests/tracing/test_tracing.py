"""One request's trace, from the caller's own span to the reply, as a real collector gets it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.errors import DeadlineExceeded, InvalidRequest, ModelError
from common.tracing import Tracing
from gateway import AsyncClient, Client
from gateway.ensembles.file import load_ensembles
from tests.support.collector import Collector, Span
from tests.support.command import ROOT
from tests.support.echo_worker import EchoWorker
from tests.support.gateways import Gateway
from tests.support.http import ask
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
OF_A_REQUEST = ("infer shout", "enqueue", "wait", "compute", "reply")
SERVED = "POST /models/{model}"


def in_trace(seen: Collector, trace: str, names: tuple[str, ...]) -> dict[str, Span]:
    """The spans of a trace by name, once these are there."""
    seen.wait(lambda spans: {*names} <= {one.name for one in spans if one.trace == trace}, f"{names} come")
    return {one.name: one for one in seen.spans if one.trace == trace}


def test_a_request_is_one_trace_from_the_application_to_the_reply(
    redis_url: str, served: str, seen: Collector, tracer: Tracer
) -> None:
    with Client(redis_url, pool=served, tracing=Tracing(tracer)) as client:
        with tracer.start_as_current_span("application") as outer:
            handle = client.submit("shout", "hello")
            handle.result()
        spans = in_trace(seen, f"{outer.get_span_context().trace_id:032x}", ("application", *OF_A_REQUEST))
        seen.wait(lambda _: bool(seen.named("batch shout")), "the batch comes")

    request = spans["infer shout"]
    assert request.parent == spans["application"].id
    assert {spans[name].parent for name in OF_A_REQUEST[1:]} == {request.id}
    assert [spans[name].kind for name in OF_A_REQUEST] == ["CLIENT", "PRODUCER", "CONSUMER", "INTERNAL", "PRODUCER"]
    assert spans["wait"].attributes["request.id"] == request.attributes["request.id"] == handle.request_id
    # Each stage begins where the one before it ends.
    assert request.start_ns <= spans["enqueue"].end_ns <= request.end_ns
    assert spans["wait"].end_ns == spans["compute"].start_ns <= spans["compute"].end_ns == spans["reply"].start_ns
    [batch] = seen.named("batch shout")
    assert (batch.parent, batch.links) == ("", (request.id,))
    assert spans["compute"].links == (batch.id,)


def test_a_batch_is_linked_to_each_traced_request_in_it(
    redis_url: str, served: str, seen: Collector, tracer: Tracer
) -> None:
    with Client(redis_url, pool=served, tracing=Tracing(tracer)) as client:
        list(client.map("shout", map(str, range(100))))
        seen.wait(lambda _: sum(len(one.links) for one in seen.named("batch shout")) == 100, "all are linked")
        seen.wait(lambda _: len(seen.named("infer shout")) == 100 == len(seen.named("compute")), "all have come")

    batches = {one.id: set(one.links) for one in seen.named("batch shout")}
    assert max(map(len, batches.values())) > 1
    assert all(one.parent in batches[one.links[0]] for one in seen.named("compute"))


def test_a_door_continues_the_trace_of_its_caller(door: Gateway, seen: Collector) -> None:
    parent = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
    assert ask(door.address, "POST", "/models/shout", {"text": "hello"}, **parent).status == 200

    spans = in_trace(seen, TRACE, (SERVED, *OF_A_REQUEST))
    assert (spans[SERVED].parent, spans[SERVED].kind, spans[SERVED].state) == (CALLER, "SERVER", "vendor=1")
    assert spans["infer shout"].parent == spans[SERVED].id
    assert spans[SERVED].attributes["http.response.status_code"] == 200
    assert {spans[name].service for name in (SERVED, "infer shout")} == {"inference-worker-gateway"}
    assert spans["compute"].service == "inference-worker-worker"


def test_what_its_caller_does_not_record_nobody_records(door: Gateway, seen: Collector) -> None:
    headers = (f"00-{'a' * 32}-{CALLER}-00", "no trace at all")
    for one in headers:
        assert ask(door.address, "POST", "/models/shout", {"text": "1"}, traceparent=one).status == 200

    seen.wait(
        lambda spans: bool(seen.named("reply") and seen.named("infer shout")), "the second one comes, as its own trace"
    )
    assert "a" * 32 not in {one.trace for one in seen.spans}
    assert len(seen.named("infer shout")) == 1


def test_an_error_is_told_by_each_span_that_it_ended(
    redis_url: str, served: str, seen: Collector, tracer: Tracer
) -> None:
    with Client(redis_url, pool=served, tracing=Tracing(tracer)) as client:
        with pytest.raises(ModelError):
            client.infer("root", -1.0)
        with pytest.raises(InvalidRequest):
            client.infer("root", -1.0, parameters={"deep": float("nan")})
        seen.wait(lambda spans: len(seen.named("infer root")) == 2 and bool(seen.named("compute")), "all come")

    failed = [(one.name, one.attributes["error.type"]) for one in seen.spans if one.failed]
    assert sorted(failed) == [
        ("compute", "model_error"),
        ("infer root", "invalid_request"),
        ("infer root", "model_error"),
    ]


def test_what_is_late_before_it_runs_has_a_wait_and_no_compute(
    redis_url: str, served: str, seen: Collector, tracer: Tracer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with Client(redis_url, pool=served, tracing=Tracing(tracer)) as client:
        first = client.submit("waits", {"gate": str(gate)})
        wait_until(lambda: Path(f"{gate}.entered").exists(), "the worker is busy")
        with pytest.raises(DeadlineExceeded):
            client.infer("waits", {"gate": str(gate)}, timeout=0.3)
        gate.touch()
        first.result()
        seen.wait(lambda _: len(seen.named("wait")) == 2 and bool(seen.named("compute")), "both are answered")

    [late] = [one for one in seen.named("wait") if one.failed]
    assert late.attributes["error.type"] in ("deadline_exceeded", "cancelled")
    assert late.trace not in {one.trace for one in seen.named("compute")}


def test_an_ensemble_is_one_trace_with_a_span_for_each_step(
    redis_url: str, served: str, seen: Collector, tracer: Tracer, tmp_path: Path
) -> None:
    file = tmp_path / "twice.toml"
    file.write_text(
        """
        [loud.steps.once]
        model = "shout"
        inputs.text = "request.text"

        [loud.steps.twice]
        model = "shout"
        inputs.text = "once.output"

        [loud.outputs]
        text = "twice.output"
        """
    )

    async def story() -> None:
        async with AsyncClient(
            redis_url, pool=served, ensembles=load_ensembles(file), tracing=Tracing(tracer)
        ) as client:
            await client.infer("loud", "hello")

    asyncio.run(story())
    seen.wait(lambda _: len(seen.named("compute")) == 2 and bool(seen.named("infer loud")), "both steps come")
    [whole] = seen.named("infer loud")
    assert {(one.trace, one.parent) for one in seen.named("infer shout")} == {(whole.trace, whole.id)}
    assert {one.trace for one in seen.named("compute")} == {whole.trace}


def test_who_does_not_trace_sends_no_field_and_loads_nothing_for_it(redis_url: str, pool: str) -> None:
    with EchoWorker(redis_url, pool) as worker, Client(redis_url, pool=pool) as client:
        client.infer("echo", {"x": 1.0})
        assert worker.seen[0].trace is None

    code = (
        "import sys, gateway, gateway.door.deployment, inference_worker.process; print('opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "False\n", done.stderr

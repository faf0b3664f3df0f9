"""inference-worker demo"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from threading import Thread

import click
import numpy as np

from common.embedded import EmbeddedRedis
from common.errors import ConfigError, WorkerLost
from common.keys import DEFAULT_POOL
from common.logs import setup_logging
from common.tensor import Array
from gateway import Client, Result
from inference_worker.cli.demo_pass import Pass
from inference_worker.cli.demo_view import DemoView
from inference_worker.cli.examples import examples_folder
from inference_worker.cli.fleet import FleetOptions, plans
from inference_worker.supervision import events
from inference_worker.supervision.settings import FleetSettings
from inference_worker.supervision.supervisor import Supervisor

QUESTION = "How do I get my money back for something that arrived broken?"
MODELS = ("minilm", "sentiment")
OPTIONS = FleetOptions("cpu", None, FleetSettings(drain_s=5.0))


@click.command("demo")
@click.option("--question", default=QUESTION, show_default=True, help="Whose nearest neighbours to find.")
def command(question: str) -> None:
    """Embed and score real sentences by real models, all in one.

    Starts an embedded Redis and a worker with two models: MiniLM sentence embeddings in torch, and
    sentiment in plain Python. Sends them the sentences in `examples/` through the ordinary client.
    Ends with 0 if every sentence was answered.

    \b
    Example:
      inference-worker demo --question "Which meal was the best?"
    """
    setup_logging("error")
    folder = examples_folder()
    sentences = (folder / "sentences.txt").read_text("utf-8").splitlines()
    view = DemoView()
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedRedis())
        view.broker(broker.url)
        stack.enter_context(served(broker.url, [str(folder / "models" / name) for name in MODELS], view))
        client = stack.enter_context(Client(broker.url))
        first = [run_pass(client, model, sentences, view) for model in MODELS]
        show_answers(client, question, sentences, first, view)
        view.passes("First pass: computed", first)
        second = [run_pass(client, model, sentences, view) for model in MODELS]
        view.passes("Second pass: the same sentences again", second)
        view.speedup(first, second)


def run_pass(client: Client, model: str, sentences: Sequence[str], view: DemoView) -> Pass:
    """Raises the first error that a sentence is answered with."""
    started = time.perf_counter()
    answers = view.progress(f"{len(sentences)} sentences to {model}", client.map(model, sentences), len(sentences))
    # The map raises errors instead of yielding them.
    results = [answer for answer in answers if isinstance(answer, Result)]
    return Pass(model, results, time.perf_counter() - started)


def show_answers(
    client: Client, question: str, sentences: Sequence[str], passes: Iterable[Pass], view: DemoView
) -> None:
    embeddings, sentiments = passes
    asked = client.infer(embeddings.model, question)["embedding"]
    view.neighbours(question, _ranked(sentences, embeddings.column("embedding") @ asked))
    ranked = _ranked(sentences, sentiments.column("compound"))
    view.sentiments(ranked[:5], ranked[:-6:-1])


def _ranked(sentences: Sequence[str], scores: Array) -> list[tuple[float, str]]:
    """Best first."""
    return [(float(scores[index]), sentences[index]) for index in np.argsort(-scores, kind="stable")]


@contextmanager
def served(url: str, paths: Sequence[str], view: DemoView) -> Iterator[None]:
    """Workers for the models at `paths`, ready; gone when the block ends, however it ends."""
    happened: SimpleQueue[events.Event | Exception] = SimpleQueue()
    fleet = Supervisor(url, plans({DEFAULT_POOL: paths}, OPTIONS), happened.put, OPTIONS.settings)
    # It starts the workers, and they end with the thread that started them. Whatever interrupts the join
    # below, the process ends without it.
    thread = Thread(target=_supervise, args=(fleet, happened.put), name="supervisor", daemon=True)
    try:
        thread.start()
        with view.loading() as show:
            _wait_until_ready(happened, show)
        yield
    finally:
        fleet.kill()
        if thread.ident is not None:
            thread.join()


def _supervise(fleet: Supervisor, tell: Callable[[Exception], None]) -> None:
    """The supervisor's thread. Whoever waits is told what ended it."""
    try:
        fleet.run()
        tell(WorkerLost("the supervisor ended before its workers were ready"))
    except Exception as error:
        tell(error)


def _wait_until_ready(happened: SimpleQueue[events.Event | Exception], show: Callable[[events.Event], None]) -> None:
    """Raises ConfigError or WorkerLost where a worker ends instead, and what the supervisor raised."""
    while True:
        event = happened.get()
        if isinstance(event, Exception):
            raise event
        show(event)
        if isinstance(event, events.Ready):
            return
        if isinstance(event, events.Exited):
            error = ConfigError if event.will_restart_in_s is None else WorkerLost
            raise error(event.error or f"worker {event.worker} ended with {event.code}")

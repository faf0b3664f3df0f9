"""Whether the door lives and whether it wants requests, for load balancers and Kubernetes. Asks for no key."""

from __future__ import annotations

from starlette.routing import Route

from gateway.http import oip
from gateway.http.endpoint import Answer, Door, Endpoint, Request


def routes(door: Door) -> list[Route]:
    return [
        Route("/v2/health/live", Endpoint(door, live, oip.shape_error, open=True), methods=["GET"]),
        Route("/v2/health/ready", Endpoint(door, ready, oip.shape_error, open=True), methods=["GET"]),
    ]


async def live(request: Request) -> Answer:
    return Answer()


async def ready(request: Request) -> Answer:
    """503 while the broker is away, and from the beginning of a drain."""
    return Answer(200 if await request.service.ready() else 503)

"""The calls of GRPCInferenceService, by their names in inference.proto. Decides nothing: see infer.py."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import ModelNotFound
from common.orders import LOAD, UNLOAD
from gateway.door.directory import Served
from gateway.door.memory import Holding
from gateway.grpc.endpoint import Handler, Request
from gateway.grpc.infer import fill, parse
from gateway.grpc.pb import inference_pb2 as pb
from gateway.grpc.traced import traced
from gateway.oip import models
from gateway.oip.parameters import UNSUPPORTED, ordered


async def server_live(request: Request) -> pb.ServerLiveResponse:
    return pb.ServerLiveResponse(live=True)


async def server_ready(request: Request) -> pb.ServerReadyResponse:
    return pb.ServerReadyResponse(ready=await request.service.ready())


async def model_ready(request: Request) -> pb.ModelReadyResponse:
    """False where a request would only wait, or be refused."""
    try:
        return pb.ModelReadyResponse(ready=(await _served(request)).live)
    except ModelNotFound:
        return pb.ModelReadyResponse(ready=False)


async def server_metadata(request: Request) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(**models.server())


async def model_metadata(request: Request) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(**models.metadata(await _served(request)))


async def model_config(request: Request) -> pb.ModelConfigResponse:
    config = models.config(await _served(request))
    # Triton's versions are numbers: those that are none are told by ModelMetadata only.
    numbers = [int(one) for one in config["version_policy"]["specific"]["versions"] if one.isdecimal()]
    config["version_policy"] = {"specific": {"versions": numbers}}
    return pb.ModelConfigResponse(config=pb.ModelConfig(**config))


async def model_statistics(request: Request) -> pb.ModelStatisticsResponse:
    message = request.message
    name, version = message.name, message.version
    if name:
        served = await _served(request)
        titles = [(served.info.name, one) for one in ([version] if version else served.versions)]
    else:
        titles = [(one.info.name, one.info.version) for one in await request.service.models(request.tenant)]
    counts = request.service.statistics
    return pb.ModelStatisticsResponse(**models.statistics((*title, counts.of(*title)) for title in titles))


async def repository_index(request: Request) -> pb.RepositoryIndexResponse:
    ready_only = request.message.ready
    served = await request.service.models(request.tenant)
    told = [pb.RepositoryIndexResponse.ModelIndex(**one) for one in models.index(served, ready_only)]
    return pb.RepositoryIndexResponse(models=told)


async def load(request: Request) -> pb.RepositoryModelLoadResponse:
    await _order(request, LOAD)
    return pb.RepositoryModelLoadResponse()


async def unload(request: Request) -> pb.RepositoryModelUnloadResponse:
    await _order(request, UNLOAD)
    return pb.RepositoryModelUnloadResponse()


async def infer(request: Request) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse()
    if await infer_into(response, request):
        request.tell(("x-cache", "hit"))
    return response


async def infer_into(response: pb.ModelInferResponse, request: Request) -> bool:
    """Ask the model and fill the response; whether the result was kept."""
    if (tracing := request.service.tracing) is None:
        return await _infer_into(response, request)
    with traced(tracing, request):
        return await _infer_into(response, request)


#: Those without a key are asked by whoever watches the process.
OPEN: Mapping[str, Handler] = {"ServerLive": server_live, "ServerReady": server_ready}
HANDLERS: Mapping[str, Handler] = {
    "ModelInfer": infer,
    "ModelReady": model_ready,
    "ServerMetadata": server_metadata,
    "ModelMetadata": model_metadata,
    "ModelConfig": model_config,
    "ModelStatistics": model_statistics,
    "RepositoryIndex": repository_index,
    "RepositoryModelLoad": load,
    "RepositoryModelUnload": unload,
}
REFUSED: Mapping[str, str] = {
    "SystemSharedMemoryStatus": UNSUPPORTED["systemsharedmemory"],
    "SystemSharedMemoryRegister": UNSUPPORTED["systemsharedmemory"],
    "SystemSharedMemoryUnregister": UNSUPPORTED["systemsharedmemory"],
    "CudaSharedMemoryStatus": UNSUPPORTED["cudasharedmemory"],
    "CudaSharedMemoryRegister": UNSUPPORTED["cudasharedmemory"],
    "CudaSharedMemoryUnregister": UNSUPPORTED["cudasharedmemory"],
    "TraceSetting": UNSUPPORTED["trace"],
    "LogSettings": UNSUPPORTED["logging"],
}


async def _infer_into(response: pb.ModelInferResponse, request: Request) -> bool:
    """Its timeout is its own parameter's, or the client's deadline where that comes first."""
    holding = Holding(request.service.memory)
    holding.take(request.size)
    try:
        id, call, inputs = parse(request.message, request.cacheable)
        left_s = request.time_left_s
        if left_s is not None and (call.timeout is None or left_s < call.timeout):
            call = call._replace(timeout=left_s)
        result = await request.service.infer(request.tenant, call, inputs)
    finally:
        holding.drop()
    fill(response, id, result)
    return result.cached


async def _served(request: Request) -> Served:
    message = request.message
    return await request.service.find(request.tenant, message.name, message.version or None)


async def _order(request: Request, do: str) -> None:
    message = request.message
    parameters = {name: one.string_param for name, one in message.parameters.items()}
    await request.service.order(request.tenant, do, *ordered(message.model_name, parameters))

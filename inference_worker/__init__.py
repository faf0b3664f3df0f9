"""The worker side: models, backends, and the processes that serve them. Importing it loads no numpy and no torch."""

from common.errors import InvalidRequest
from inference_worker.backends.base import Context, ModelRequest
from inference_worker.model import Model, model

__all__ = ["Context", "InvalidRequest", "Model", "ModelRequest", "model"]

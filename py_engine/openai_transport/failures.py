"""Our errors as OpenAI's service reports them: an HTTP status and the body of the response."""

from __future__ import annotations

import logging
import re
from typing import Any

import py_engine.errors as errors

# The first row whose class fits decides: class, HTTP status, `code` (OpenAI's where it has one).
# 400 becomes openai.BadRequestError, 404 NotFoundError, the others InternalServerError.
STATUSES: tuple[tuple[type[Exception], int, str | None], ...] = (
    (errors.ContextWindowSizeExceededError, 400, "context_length_exceeded"),
    (errors.SpecifiedModelNotFoundError, 404, "model_not_found"),
    (errors.ModelNotFoundError, 404, "model_not_found"),
    (errors.ModelNotLoadedError, 404, "model_not_loaded"),
    (errors.UnclearModelToUseError, 400, "model_required"),
    (errors.IncorrectPipelineLoadedError, 400, "model_not_supported"),
    (errors.UnsupportedEndpointError, 404, "unknown_endpoint"),
    (errors.UnsupportedFieldsError, 400, "unsupported_parameter"),
    (errors.RequestError, 400, "invalid_request"),
    (errors.DeviceLostError, 503, "device_lost"),
    (errors.DeviceError, 503, "device_error"),
    (errors.WorkerFailedError, 503, "worker_failed"),
    (Exception, 500, "internal_error"),
)

# The field that a RequestError's text begins with: "request: top_p is ...", "messages[2].role ...".
_FIELD = re.compile(r"(?:request: |(?=messages))([a-z_]\w*(?:\.\w+|\[\d+\])*)")

logger = logging.getLogger(__name__)


def failure(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the body, `{"error": {message, type, param, code}}`.

    `type` is the name of the error's class. What is no error class of ours is logged with its
    traceback, since the client shows only the text.
    """
    status, code = next(row[1:] for row in STATUSES if isinstance(error, row[0]))
    if not isinstance(error, errors.MLCError):
        logger.error("a request failed: %r", error, exc_info=error)
    name = error.name if isinstance(error, errors.RemoteError) else type(error).__name__
    message = str(error) or name
    field = _FIELD.match(message) if isinstance(error, errors.RequestError) else None
    param = field[1] if field else None
    return status, {"error": {"message": message, "type": name, "param": param, "code": code}}

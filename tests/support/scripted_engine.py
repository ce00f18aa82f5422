"""An engine without a model: it repeats the last message, word by word.

It keeps the manners of MLCEngine that the worker protocol depends on: one generation at a time,
released when a stream is closed; interruption between words; progress reports while loading.
Uses py_engine only, so that it also runs inside a worker (tests/browser/test_proxy.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import py_engine.errors as errors
from py_engine.api.objects import ApiObject
from py_engine.config import InitProgressReport


class ScriptedEngine:
    """Answers with the words of the last message.

    A message "raise Name text" raises that class of py_engine.errors, or that builtin exception.
    The word "BREAK" raises DeviceLostError in the middle of the answer; "REQUEST" is answered with
    the request's other fields, "OPTIONS" with the options of the last load. A word in parentheses
    is a thought. An image object of the message is told of by its size.
    """

    def __init__(self, seconds_per_word: float = 0.0) -> None:
        self.seconds_per_word = seconds_per_word
        self.calls: list[tuple[str, Any]] = []
        self.loaded: list[str] = []
        self.chat_opts: list[dict[str, Any]] | None = None
        self.local: set[str] = set()  # addresses of registered files
        self.stored = [_stored("some-model", 8, 8), _stored("", 3, 8)]
        self.finished = 0  # generations that ended or were closed
        self.last_message = ""
        self._report: Any = None
        self._is_interrupted = False
        self._turn = asyncio.Lock()

    def set_init_progress_callback(self, callback: Any) -> None:
        self._report = callback

    def set_app_config(self, app_config: Any) -> None:
        self.calls.append(("set_app_config", app_config))

    def set_log_level(self, log_level: str) -> None:
        self.calls.append(("set_log_level", log_level))

    async def reload(self, model_id: list[str], chat_opts: list[dict[str, Any]] | None) -> None:
        self.calls.append(("reload", (model_id, chat_opts)))
        self.loaded = []
        for step in range(3):
            loaded, total = step * 4_000_000, 8_000_000
            rate = 8e6 if step else 0.0
            left = (total - loaded) / 8e6 if step else None
            text = f"Fetching param cache: step {step}"
            seconds = step / 2
            self._report(InitProgressReport(step / 2, seconds, text, loaded, total, rate, left))
            await asyncio.sleep(self.seconds_per_word)
        unknown = {name for name in model_id if name.startswith("local:")} - self.local
        if "missing" in model_id or unknown:
            raise errors.ModelNotFoundError(f"{model_id} is in no record.")
        self.loaded, self.chat_opts = model_id, chat_opts

    async def register_local_files(self, name: str, files: Any) -> str:
        """Take the files; `get_message` then tells their paths and texts, or folders' names."""
        texts = []
        for path, file in files:
            is_folder = getattr(file, "kind", "") == "directory"
            texts.append(f"{path}={file.name if is_folder else await file.text()}")
        self.last_message = f"{name}: {', '.join(texts)}"
        self.local.add(f"local:{name}")
        return f"local:{name}"

    async def model_cache(
        self, action: str, model_id: str | None = None, app_config: Any = None
    ) -> Any:
        """List two models, of which the half-downloaded one is busy; or delete one."""
        if action == "delete_model_all_info":
            [model] = [model for model in self.stored if model["url"] == model_id]
            if not model["is_complete"]:
                raise errors.StorageBusyError(f"{model_id} is being downloaded in another tab.")
            self.stored.remove(model)
        return self.stored

    async def unload(self) -> None:
        self.calls.append(("unload", None))
        self.loaded = []

    async def reset_chat(self, keep_stats: bool = False, model_id: str | None = None) -> None:
        self.calls.append(("reset_chat", (keep_stats, model_id)))

    async def get_message(self, model_id: str | None = None) -> str:
        return self.last_message

    async def runtime_stats_text(self, model_id: str | None = None) -> str:
        return f"prefill: 1.0000 tokens/sec, model {model_id}"

    def interrupt_generate(self) -> None:
        self.calls.append(("interrupt_generate", None))
        self._is_interrupted = True

    async def get_max_storage_buffer_binding_size(self) -> int:
        return 2**31

    async def get_gpu_vendor(self) -> str:
        return "scripted"

    async def profile_kernels(self, model_id: str | None = None, n_tokens: int = 128) -> ApiObject:
        """Return a profile of few kernels, unless something in capitals was said last."""
        self._is_interrupted = False
        while "FOR EVER" in self.last_message:
            await asyncio.sleep(self.seconds_per_word)
            if self._is_interrupted:
                raise errors.AbortError("interrupt_generate() ended the profile.")
        if "NO ROOM" in self.last_message:
            raise errors.OutOfMemoryError("no room for two buffers; load a smaller model.")
        if "NO DEVICE" in self.last_message:
            raise errors.DeviceLostError("the device was lost; reload the model.")
        return ApiObject(_profile(self.loaded[0], n_tokens))

    async def chat_completion(self, request: dict[str, Any]) -> Any:
        text = _text_of(request["messages"][-1]["content"])
        if text.startswith("raise "):
            _raise(*text.split(" ", 2)[1:])
        chunks = self._chunks(request, text.split())
        if request.get("stream"):
            return chunks
        words, finish_reason = [], None
        async for chunk in chunks:
            for choice in chunk.choices:
                words.append(choice.delta.content or "")
                finish_reason = choice.finish_reason
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "finish_reason": finish_reason, "message": message}
        return ApiObject(
            {"object": "chat.completion", "choices": [choice], "model": self.loaded[0]}
        )

    async def completion(self, request: dict[str, Any]) -> Any:
        """Repeat the prompt, as text."""
        prompt = request["prompt"]
        if prompt.startswith("raise "):
            _raise(*prompt.split(" ", 2)[1:])
        chunks = self._text_chunks(request, prompt.split())
        if request.get("stream"):
            return chunks
        parts = [choice async for chunk in chunks for choice in chunk.choices]
        text = "".join(part.text for part in parts)
        return _text(text, parts[-1].finish_reason, self.loaded[0])

    async def embedding(self, request: dict[str, Any]) -> ApiObject:
        """Return the length of each input as its vector."""
        given = request["input"]
        inputs = given if isinstance(given, list) else [given]
        data = [
            {"object": "embedding", "index": index, "embedding": [float(len(text))]}
            for index, text in enumerate(inputs)
        ]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return ApiObject({"object": "list", "data": data, "model": self.loaded[0], "usage": usage})

    async def count_tokens(
        self, messages: list[Any], model_id: str | None = None, tools: list[Any] | None = None
    ) -> int:
        """Count words, and ten for each tool."""
        self.calls.append(("count_tokens", model_id))
        words = [word for message in messages for word in message["content"].split()]
        return len(words) + 10 * len(tools or ())

    def _said(self, word: str, request: dict[str, Any]) -> str:
        if word == "OPTIONS":
            return json.dumps(self.chat_opts)
        return _other_fields(request) if word == "REQUEST" else word

    async def _text_chunks(self, request: dict[str, Any], words: list[str]) -> AsyncIterator[Any]:
        async for chunk in self._chunks(request, words):
            for choice in chunk.choices:
                yield _text(choice.delta.content or "", choice.finish_reason, self.loaded[0])

    async def _chunks(self, request: dict[str, Any], words: list[str]) -> AsyncIterator[Any]:
        async with self._turn:
            try:
                self._is_interrupted = False
                self.last_message = ""
                for word in words:
                    await asyncio.sleep(self.seconds_per_word)
                    if self._is_interrupted:
                        break
                    if word == "BREAK":
                        raise errors.DeviceLostError("the device was lost; reload the model.")
                    said = f"{self._said(word, request)} "
                    self.last_message += said
                    is_thought = word.startswith("(") and word.endswith(")")
                    field = "reasoning_content" if is_thought else "content"
                    yield _chunk({"role": "assistant", field: said})
                yield _chunk({}, "abort" if self._is_interrupted else "stop")
                if (request.get("stream_options") or {}).get("include_usage"):
                    yield _usage(len(words))
            finally:
                self.finished += 1


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> ApiObject:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return ApiObject({"object": "chat.completion.chunk", "choices": [choice]})


def _text_of(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part.get("text") or _image(part["image_url"]["url"]) for part in content)


def _image(url: Any) -> str:
    return url if isinstance(url, str) else f"{url.width}x{url.height}"


def _stored(model_id: str, stored: int, total: int) -> dict[str, Any]:
    return {
        "url": f"https://example.org/{model_id or 'other'}/",
        "model_ids": [model_id] if model_id else [],
        "stored_bytes": stored * 1_000_000,
        "total_bytes": total * 1_000_000,
        "is_complete": stored == total,
        "files": {"params_shard_0.bin": stored * 1_000_000},
    }


def _profile(model: str, n_tokens: int) -> dict[str, Any]:
    fields = {"nbytes": 6_000, "bandwidth_fraction": 0.25, "arithmetic_fraction": 0.5}
    down = {"kernel": "down", "shape": "64 x 96", "count": 2, "seconds": 3e-6, "operations": 12_000}
    draw = {"kernel": "sample", "shape": "", "count": 1, "seconds": 2e-6, "operations": 0}
    norm = {"kernel": "norm", "shape": "", "count": 1, "seconds": 4e-6, "operations": 0}

    def phase(position: int, n_tokens: int, kernels: Any, layers: Any) -> dict[str, Any]:
        return {
            "position": position,
            "n_tokens": n_tokens,
            "seconds": 9e-6 * n_tokens,
            "kernels": [fields | kernel for kernel in kernels],
            "dispatches": [{"kernel": kernel, "layer": layer} for kernel, layer in layers],
        }

    return {
        "model": model,
        "adapter": "scripted",
        "has_timestamps": True,
        "n_tokens": n_tokens,
        "copy_bytes_per_s": 8e9,
        "read_bytes_per_s": 4e9,
        "operations_per_s": 8e9,
        "prefill": phase(0, n_tokens, [norm, down], [(0, 0), (1, 0), (1, 1)]),
        "decode": phase(n_tokens, 1, [down, draw], [(0, 0), (0, 1), (1, None)]),
    }


def _text(text: str, finish_reason: str | None, model: str) -> ApiObject:
    choice = {"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": None}
    return ApiObject({"object": "text_completion", "choices": [choice], "model": model})


def _other_fields(request: dict[str, Any]) -> str:
    return json.dumps({name: request[name] for name in request if name != "messages"})


def _usage(n_words: int) -> ApiObject:
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": n_words,
        "total_tokens": 7 + n_words,
        "extra": {"time_to_first_token_s": 0.25, "decode_tokens_per_s": 40.0},
    }
    return ApiObject({"object": "chat.completion.chunk", "choices": [], "usage": usage})


def _raise(name: str, text: str) -> None:
    known = {"ZeroDivisionError": ZeroDivisionError}
    error = (known.get(name) or getattr(errors, name))(text)
    error.model_id = "some-model"
    raise error

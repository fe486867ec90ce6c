"""A model behind an HTTP server that speaks OpenAI's form: vLLM, `transformers serve`, or a hosted one."""

from __future__ import annotations

import base64
import email.utils
import io
import logging
import os
import random
import threading
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from peav.engine.backends.base import Answer, Backend, Request, register_backend
from peav.engine.stage import EngineStop
from peav.lazy import import_extra
from peav.types import Seconds

_log = logging.getLogger(__name__)

#: Answers that say that the same request may do better later.
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)

#: Answers that say that no request will do: keys, addresses and names of models that are wrong, and servers that send one elsewhere.
HOPELESS = (401, 403, 404, 405, *range(300, 309))

#: The longest that a server may ask to wait.
MAX_WAIT: Seconds = 120.0


@register_backend
class HTTPBackend(Backend):
    """Asks a server at `URL/chat/completions`.

    Sound goes as a part of its own (`input_audio`, WAV), frames as JPEG pictures. What may do better later (429, 5xx, timeouts, answers
    that are cut, are no JSON, or hold an error with status 200) is tried again, with backoff, or when the server says (Retry-After). What
    will not (400, 422) is an error of that request. A server that refuses connections `max_refused` times in a row, or the key, the
    address or the model (401, 403, 404), ends the run. Redirects are not followed.

    Args:
        url: of the server, up to and with `/v1`.
        model: as the server calls it.
        revision: of the model, for the key and the provenance: the server does not say it.
        licence: of the model, for the provenance.
        api_key_env: name of the environment variable that holds the key; "" for none.
        concurrency: requests at once.
        timeout_seconds: of a request.
        retries: of a request.
        backoff_seconds: before the first one; doubled each time, with chance, up to 30 s.
        max_refused: refused connections in a row that end the run.
        extra: further fields of each request, such as {"top_p": 0.9}.
    """

    def __init__(
        self,
        url: str,
        model: str,
        revision: str = "",
        licence: str = "",
        api_key_env: str = "",
        concurrency: int = 16,
        timeout_seconds: float = 300.0,
        retries: int = 4,
        backoff_seconds: float = 0.5,
        max_refused: int = 5,
        extra: dict[str, Any] | None = None,
    ) -> None:
        httpx2 = import_extra("httpx2", "engine", "HTTPBackend")
        if concurrency < 1 or retries < 0 or max_refused < 1:
            raise ValueError(
                f"concurrency and max_refused must be at least 1 and retries at least 0, got {concurrency}, {max_refused}, {retries}"
            )
        key = os.environ.get(api_key_env, "") if api_key_env else ""
        if api_key_env and not key:
            raise ValueError(f"the environment variable {api_key_env}, which should hold the key of {url}, is not set")
        self.url, self.model, self.retries, self.backoff_seconds = url.rstrip("/"), model, retries, backoff_seconds
        self.max_refused, self.extra = max_refused, dict(extra or {})
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._httpx = httpx2
        self._client = httpx2.Client(
            timeout=timeout_seconds,
            headers=headers,
            follow_redirects=False,
            trust_env=False,
            limits=httpx2.Limits(max_connections=concurrency),
        )
        self._pool = ThreadPoolExecutor(concurrency)
        self._refused = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._why = ""

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the model, its revision and the further fields."""
        return {name: init_args[name] for name in ("model", "revision", "extra")}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the model."""
        revision = f"@{init_args['revision']}" if init_args["revision"] else ""
        return {f"{init_args['model']}{revision}": init_args["licence"]}

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Asks the server, `concurrency` requests at once."""
        return self.post("chat/completions", [{"json": self._body(request)} for request in requests], _read)

    def post(self, path: str, bodies: Sequence[Mapping[str, Any]], read: Callable[[Any], Answer]) -> list[Answer]:
        """Posts to the server, `concurrency` bodies at once, and again what may do better later.

        Args:
            path: behind the address.
            bodies: as httpx takes them: `json`, or `data` and `files`.
            read: from a response with status 200 to an answer; one with an error is asked for again.

        Raises:
            EngineStop: if no request can be answered at present.
        """
        futures = [self._pool.submit(self._ask, path, body, read) for body in bodies]
        try:
            return [future.result() for future in futures]
        except BaseException:
            self._ended.set()
            for future in futures:
                future.cancel()
            raise

    def close(self) -> None:
        """Closes the connections."""
        self._ended.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _ask(self, path: str, body: Mapping[str, Any], read: Callable[[Any], Answer]) -> Answer:
        error, wait = "", 0.0
        for attempt in range(self.retries + 1):
            if attempt:
                self._ended.wait(
                    wait or min(self.backoff_seconds * 2 ** (attempt - 1), 30.0) * random.uniform(0.75, 1.25)
                )
            if self._ended.is_set():
                raise EngineStop(self._why or error or "the run ends")
            wait = 0.0
            try:
                response = self._client.post(f"{self.url}/{path}", **body)
            except self._httpx.ConnectError as failure:
                error = f"{self.url} cannot be reached: {failure}"
                self._count_refused(error)
                continue
            except self._httpx.TimeoutException:
                error = f"{self.url} did not answer in time"
                continue
            except self._httpx.HTTPError as failure:  # the connection was cut in the middle
                error = f"{self.url}: {type(failure).__name__}: {failure}"
                continue
            with self._lock:
                self._refused = 0
            status = response.status_code
            if status in HOPELESS:
                raise EngineStop(f"{self.url} answered {status} for the model {self.model!r}: {response.text[:300]}")
            if status in RETRIED:
                error = f"{self.url} answered {status}: {response.text[:200]}"
                wait = _wait_of(response.headers.get("retry-after"))
                continue
            if status != 200:
                return Answer(error=f"{self.url} answered {status}: {response.text[:300]}")
            answer = read(response)
            if not answer.error:
                return answer
            error = answer.error
        return Answer(error=f"{error} (tried {self.retries + 1} times)")

    def _count_refused(self, error: str) -> None:
        with self._lock:
            self._refused += 1
            if self._refused < self.max_refused:
                return
            # Requests that wait meanwhile end for this reason, too: any of them may be the one whose error is seen.
            self._why = self._why or (
                f"{error}. {self._refused} connections in a row were refused: start the server, and run the same command again"
            )
        self._ended.set()
        raise EngineStop(self._why)

    def _body(self, request: Request) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        for frame in request.frames if request.frames is not None else ():
            url = f"data:image/jpeg;base64,{_jpeg(frame)}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        if request.audio is not None:
            data = base64.b64encode(wav_bytes(request.audio, request.sample_rate)).decode()
            parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
        content: Any = [*parts, {"type": "text", "text": request.text}] if parts else request.text
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages.append({"role": "user", "content": content})
        return {
            "model": self.model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            **self.extra,
        }


def read_object(response: Any) -> dict[str, Any] | Answer:
    """Reads a body of status 200: an object, or what is wrong with it; some servers put an error into it."""
    try:
        data = response.json()
    except ValueError:
        return Answer(error=f"the answer is no JSON: {response.text[:100]!r}")
    if not isinstance(data, dict) or data.get("error"):
        said = data.get("error") if isinstance(data, dict) else data
        return Answer(error=f"the answer with status 200 holds an error: {said!r:.300}")
    return data


def _read(response: Any) -> Answer:
    data = read_object(response)
    if isinstance(data, Answer):
        return data
    try:
        choice = data["choices"][0]
        text, usage = choice["message"]["content"], data.get("usage") or {}
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        if not isinstance(text, str):
            return Answer(error=f"the answer holds no text: {choice!r:.200}")
        return Answer(text, finish, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return Answer(error=f"the answer is none of OpenAI's form: {str(data)[:200]!r}")


def _wait_of(header: str | None) -> Seconds:
    """Returns the seconds that a Retry-After header asks for, 0 where it says nothing that can be read."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), MAX_WAIT) if seconds == seconds else 0.0


def wav_bytes(samples: np.ndarray[Any, Any], sample_rate: int) -> bytes:
    """Returns a sound (S,) as a WAV file of 16 bits."""
    held = io.BytesIO()
    with wave.open(held, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(sample_rate)
        stream.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return held.getvalue()


def _jpeg(frame: np.ndarray[Any, Any]) -> str:
    held = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(held, "JPEG", quality=90)
    return base64.b64encode(held.getvalue()).decode()

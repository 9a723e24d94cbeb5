"""`anteroom/MODEL` for Inspect: its OpenAI-compatible provider over the gateway, with the ledger's names in the log."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from inspect_ai.model import GenerateConfig, ModelOutput
from inspect_ai.model._providers.openai_compatible import OpenAICompatibleAPI

from .gateway import find_or_start

# What the gateway says beside an answer, and what the log calls it.
SAID = {
    "x-anteroom-call": "call",
    "x-anteroom-receipt": "receipt",
    "x-anteroom-grant": "grant",
    "x-anteroom-grant-end": "grant_end",
    "x-anteroom-marking": "marking",
    "x-anteroom-assertion": "assertion",
}

# The attempts of the generation that runs in this task.
_attempts: ContextVar[list[dict[str, Any]] | None] = ContextVar("anteroom_attempts", default=None)


async def _note(response: Any) -> None:
    attempts = _attempts.get()
    if attempts is None:
        return
    said = {name: response.headers[header] for header, name in SAID.items() if header in response.headers}
    if not said:
        return
    if "receipt" in said:
        said["receipt"] = int(said["receipt"])
    if "assertion" in said:
        said["assertion"] = unquote(said["assertion"])
    said["status"] = response.status_code
    attempts.append(said)


class AnteroomAPI(OpenAICompatibleAPI):
    """A lent model, called through the local gateway."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),
        home: str | None = None,
        grant: str | None = None,
        run: str | None = None,
        marking: str | None = None,
        program: str | None = None,
        **model_args: Any,
    ) -> None:
        self.marking = marking
        if base_url is None or api_key is None:
            gateway = find_or_start(home, grant, run, program)
            base_url, api_key = base_url or gateway.base_url, api_key or gateway.token
        super().__init__(
            model_name=model_name,
            base_url=base_url,
            api_key=api_key,
            config=config,
            service="anteroom",
            api_key_var="ANTEROOM_GATEWAY_TOKEN",
            **model_args,
        )

    def initialize(self) -> None:
        super().initialize()
        hooks = self.http_client.event_hooks
        if _note not in hooks.get("response", []):
            hooks.setdefault("response", []).append(_note)
            self.http_client.event_hooks = hooks

    def request_headers(self, config: GenerateConfig) -> dict[str, str]:
        return {"x-anteroom-marking": self.marking} if self.marking else {}

    async def generate(self, *args: Any, **kwargs: Any) -> Any:
        attempts: list[dict[str, Any]] = []
        token = _attempts.set(attempts)
        try:
            result = await super().generate(*args, **kwargs)
        finally:
            _attempts.reset(token)
        output = result[0] if isinstance(result, tuple) else result
        if attempts and isinstance(output, ModelOutput):
            said = {**attempts[-1], "attempts": attempts[:-1]} if len(attempts) > 1 else attempts[-1]
            output.metadata = {**(output.metadata or {}), "anteroom": said}
        return result

    def connection_key(self) -> str:
        # One budget and one gateway, however many models share them.
        return f"anteroom:{self.base_url}"

"""What PyRIT makes of a gateway. Each scene prints what it saw as one line of JSON; whoever started it judges.

    OPENAI_BASE_URL=… OPENAI_API_KEY=… python client_pyrit.py SCENE MODEL
"""

import asyncio
import json
import os
import sys
from typing import Any

from pyrit.executor.attack import PromptSendingAttack
from pyrit.memory import CentralMemory
from pyrit.models import Message, MessagePiece
from pyrit.prompt_normalizer import PromptNormalizer
from pyrit.prompt_target import OpenAIChatTarget
from pyrit.setup import initialize_pyrit_async


def say(**seen: object) -> None:
    print(json.dumps(seen), flush=True)


def target(model: str, **more: Any) -> OpenAIChatTarget:
    # Its own names for the two lines differ from the libraries'.
    return OpenAIChatTarget(
        model_name=model, endpoint=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"], **more
    )


def root(of: BaseException) -> BaseException:
    """What went wrong first: PyRIT wraps what the OpenAI library throws."""
    while of.__cause__ is not None:
        of = of.__cause__
    return of


def error(of: BaseException) -> dict[str, object]:
    first = root(of)
    return {
        "wrapped": type(of).__name__,
        "class": type(first).__name__,
        "status": getattr(first, "status_code", None),
        "code": getattr(first, "code", None),
        "request": getattr(first, "request_id", None),
    }


def remembered() -> list[dict[str, object]]:
    """What its memory holds, which is what its scorers judge."""
    return [
        {"role": piece.role, "text": piece.converted_value[:40], "error": piece.response_error, "type": piece.converted_value_data_type}
        for piece in CentralMemory.get_memory_instance().get_message_pieces()
    ]


async def attack(model: str, objective: str, **more: Any) -> dict[str, object]:
    """One question by its single-turn attack, as its users ask it."""
    try:
        result = await PromptSendingAttack(objective_target=target(model, **more)).execute_async(objective=objective)
    except Exception as failed:
        return {"failed": error(failed)}
    last = result.last_response
    return {"outcome": str(result.outcome.value), "text": last.converted_value if last else None, "error": last.response_error if last else None}


async def sends(model: str) -> None:
    """Questions one by one, and a conversation of two turns."""
    single = await attack(model, "say one two")
    chat, normalizer, conversation = target(model), PromptNormalizer(), "conversation-1"
    turns = []
    for text in ["say first", "and again"]:
        message = Message(message_pieces=[MessagePiece(role="user", original_value=text, conversation_id=conversation)])
        answer = await normalizer.send_prompt_async(message=message, target=chat, conversation_id=conversation)
        turns.append(answer.get_value())
    say(single=single, turns=turns)


async def asks(model: str) -> None:
    """One question."""
    say(asking=True)
    say(seen=await attack(model, "say one two"), remembered=remembered())


async def refusals(model: str) -> None:
    say(
        unknown=await attack(model, "say one", extra_body_parameters={"extra_body": {"made_up": 1}}),
        tokens=await attack(model, "say one", max_completion_tokens=10_000_000),
        model=await attack("gpt-5", "say one"),
        server=await attack(model, "fail 400"),
        remembered=remembered(),
    )


SCENES = [sends, asks, refusals]


async def main() -> None:
    await initialize_pyrit_async("InMemory", load_defaults=False, env_files=[], silent=True)
    scene = {scene.__name__: scene for scene in SCENES}[sys.argv[1]]
    await scene(sys.argv[2])


if __name__ == "__main__":
    asyncio.run(main())

"""What the Anthropic library makes of a gateway. Each scene prints what it saw as one line of JSON; whoever started it judges.

    ANTHROPIC_BASE_URL=… ANTHROPIC_API_KEY=… python client_anthropic.py SCENE MODEL
"""

import json
import os
import sys

import anthropic

TOOL = {
    "name": "look_up",
    "description": "Looks a place up.",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string"}},
        "required": ["place"],
    },
}


def say(**seen: object) -> None:
    print(json.dumps(seen), flush=True)


def asks(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def whole(client: anthropic.Anthropic, model: str) -> None:
    raw = client.messages.with_raw_response.create(model=model, messages=asks("hello"), max_tokens=6)
    answer = raw.parse()
    say(
        text="".join(block.text for block in answer.content if block.type == "text"),
        usage=[answer.usage.input_tokens, answer.usage.output_tokens],
        stop=answer.stop_reason,
        request=answer._request_id,
        receipt=raw.headers["x-anteroom-receipt"],
        marking=raw.headers["x-anteroom-marking"],
    )


def streamed(client: anthropic.Anthropic, model: str) -> None:
    kinds, text = [], ""
    for event in client.messages.create(model=model, messages=asks("hello"), max_tokens=6, stream=True):
        kinds.append(event.type)
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            text += event.delta.text
    with client.messages.stream(model=model, messages=asks("hello"), max_tokens=6) as stream:
        helped = "".join(stream.text_stream)
        final = stream.get_final_message()
    say(
        text=text,
        kinds=kinds,
        helped=helped,
        final="".join(block.text for block in final.content if block.type == "text"),
        stop=final.stop_reason,
        usage=[final.usage.input_tokens, final.usage.output_tokens],
        request=stream.response.headers["request-id"],
    )


def spoken(client: anthropic.Anthropic, model: str) -> None:
    """A conversation with a system prompt, as blocks and as texts, and what beta's own door makes of it."""
    answer = client.messages.create(
        model=model,
        max_tokens=8,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        stop_sequences=["enough"],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "say one two"}]},
            {"role": "assistant", "content": "one two"},
            {"role": "user", "content": "once more"},
        ],
    )
    beta = client.beta.messages.create(model=model, max_tokens=8, messages=asks("say three"), betas=["made-up-2099"])
    text = [part.content[0].text for part in (answer, beta)]
    listed = [found.id for found in client.models.list()]
    say(text=text, listed=listed, name=client.models.retrieve(model).display_name)


def tools(client: anthropic.Anthropic, model: str) -> None:
    asked = {"model": model, "messages": asks("call look_up"), "tools": [TOOL], "max_tokens": 20}
    call = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    seen = [[block.name, block.input] for message in (call, final) for block in message.content]
    result = {"type": "tool_result", "tool_use_id": call.content[0].id, "content": [{"type": "text", "text": "found"}]}
    turns = [*asks("say so"), {"role": "assistant", "content": call.content}, {"role": "user", "content": [result]}]
    after = client.messages.create(model=model, messages=turns, tools=[TOOL], max_tokens=20)
    say(calls=seen, stops=[call.stop_reason, final.stop_reason], after=after.content[0].text, tool=TOOL)


def error(of: anthropic.APIError) -> dict[str, object]:
    return {
        "class": type(of).__name__,
        "status": getattr(of, "status_code", None),
        "code": getattr(of, "error_code", None),
        "kind": getattr(of, "type", None),
        "text": getattr(of, "api_message", None),
        "request": getattr(of, "request_id", None),
    }


def refusals(client: anthropic.Anthropic, model: str) -> None:
    attempts = [
        lambda: client.with_options(api_key="sk-ant-wrong").messages.create(
            model=model, messages=asks("hi"), max_tokens=4
        ),
        lambda: client.messages.create(model="claude-9", messages=asks("hi"), max_tokens=4),
        lambda: client.messages.create(model=model, messages=asks("hi"), max_tokens=4, extra_body={"made_up": 1}),
        lambda: client.messages.create(model=model, messages=asks("hi"), max_tokens=4, tools=[TOOL]),
        lambda: client.messages.count_tokens(model=model, messages=asks("hi")),
        lambda: client.messages.create(model=model, messages=asks("fail 529"), max_tokens=4),
    ]
    seen = []
    for attempt in attempts:
        try:
            attempt()
            seen.append(None)
        except anthropic.APIError as refused:
            seen.append(error(refused))
    say(seen=seen)


def cut(client: anthropic.Anthropic, model: str) -> None:
    stream = client.messages.create(model=model, messages=asks("a long story"), max_tokens=100_000, stream=True)
    say(begun=next(stream).type)
    try:
        kinds = [event.type for event in stream]
        say(ended=kinds[-1])
    except anthropic.APIError as cut_off:
        say(cut=error(cut_off))
    for asking in (client, client.with_options(max_retries=5)):
        try:
            asking.messages.create(model=model, messages=asks("more"), max_tokens=4)
            say(after=None)
        except anthropic.APIError as refused:
            say(after=error(refused))


def one(client: anthropic.Anthropic, model: str) -> None:
    """One question, whatever becomes of it."""
    say(asking=True)
    try:
        answer = client.messages.create(model=model, messages=asks("say one two"), max_tokens=8)
        say(answer=answer.content[0].text, failed=None)
    except anthropic.APIError as failed:
        say(answer=None, failed=error(failed))


def waits(client: anthropic.Anthropic, model: str) -> None:
    """One call may be open; the library waits as it is told and tries again."""
    first = client.messages.create(model=model, messages=asks("first"), max_tokens=400, stream=True)
    next(first)
    say(open=True)
    raw = client.messages.with_raw_response.create(model=model, messages=asks("second"), max_tokens=4)
    say(retries=raw.retries_taken, status=raw.status_code)


def key(client: anthropic.Anthropic, model: str) -> None:
    """The token as other clients of this dialect send it."""
    plain = {"authorization": anthropic.Omit(), "x-api-key": os.environ["ANTHROPIC_API_KEY"]}
    answer = client.messages.create(model=model, messages=asks("say hello"), max_tokens=4, extra_headers=plain)
    say(text=answer.content[0].text)


SCENES = [whole, streamed, spoken, tools, refusals, cut, one, waits, key]


def main() -> None:
    scene = {scene.__name__: scene for scene in SCENES}[sys.argv[1]]
    scene(anthropic.Anthropic(), sys.argv[2])


if __name__ == "__main__":
    main()

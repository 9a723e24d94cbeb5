"""What the OpenAI library makes of a gateway. Each scene prints what it saw as one line of JSON; whoever started it judges.

    OPENAI_BASE_URL=… OPENAI_API_KEY=… python client_openai.py SCENE MODEL
"""

import json
import sys

import openai

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a place up.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


def say(**seen: object) -> None:
    print(json.dumps(seen), flush=True)


def asks(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def whole(client: openai.OpenAI, model: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=model, messages=asks("hello"), max_tokens=6, seed=7)
    answer = raw.parse()
    say(
        text=answer.choices[0].message.content,
        usage=answer.usage.total_tokens,
        request=answer._request_id,
        receipt=raw.headers["x-anteroom-receipt"],
        marking=raw.headers["x-anteroom-marking"],
    )


def streamed(client: openai.OpenAI, model: str) -> None:
    text, usage, finish = "", None, None
    stream = client.chat.completions.create(
        model=model, messages=asks("hello"), max_tokens=6, seed=7, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    say(text=text, usage=usage.total_tokens, finish=finish, request=stream.response.headers["x-request-id"])


def other_routes(client: openai.OpenAI, model: str) -> None:
    listed = [found.id for found in client.models.list()]
    found = client.models.retrieve(model)
    completion = client.completions.create(model=model, prompt="Once upon", max_tokens=5, seed=1, logprobs=2, echo=True)
    # The library asks for base64 by itself and takes it apart.
    vectors = client.embeddings.create(model=model, input=["one", "two"]).data
    say(
        listed=listed,
        grant=found.anteroom["grant"],
        text=completion.choices[0].text,
        logprobs=len(completion.choices[0].logprobs.token_logprobs),
        vectors=[len(vector.embedding) for vector in vectors],
    )


def tools(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=asks("call look_up"), tools=[TOOL], max_tokens=20)
    call = answer.choices[0].message.tool_calls[0].function
    with client.chat.completions.stream(
        model=model, messages=asks("call look_up"), tools=[TOOL], max_tokens=20
    ) as stream:
        final = stream.get_final_completion().choices[0].message.tool_calls[0].function
    say(whole=[call.name, call.arguments], streamed=[final.name, final.arguments], tool=TOOL)


def responses(client: openai.OpenAI, model: str) -> None:
    answer = client.responses.create(model=model, input="say one two", max_output_tokens=8)
    kinds, text = [], ""
    for event in client.responses.create(model=model, input="say one two", max_output_tokens=8, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    say(whole=answer.output_text, streamed=text, kinds=kinds)


def error(of: openai.APIError) -> dict[str, object]:
    return {
        "class": type(of).__name__,
        "code": of.code,
        "param": of.param,
        "kind": of.type,
        "request": getattr(of, "request_id", None),
    }


def refusals(client: openai.OpenAI, model: str) -> None:
    attempts = [
        lambda: client.with_options(api_key="sk-wrong").models.list(),
        lambda: client.chat.completions.create(model="gpt-5", messages=asks("hi")),
        lambda: client.chat.completions.create(model=model, messages=asks("hi"), extra_body={"made_up": 1}),
        lambda: client.chat.completions.create(model=model, messages=asks("hi"), tools=[TOOL]),
        lambda: client.chat.completions.create(model=model, messages=asks("fail 500")),
    ]
    seen = []
    for attempt in attempts:
        try:
            attempt()
            seen.append(None)
        except openai.APIError as refused:
            seen.append(error(refused))
    say(seen=seen)


def cut(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=asks("a long story"), max_tokens=100_000, stream=True)
    text = next(stream).choices[0].delta.content
    say(begun=text)
    try:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        say(ended=len(text))
    except openai.APIError as cut_off:
        say(cut=error(cut_off))
    try:
        client.chat.completions.create(model=model, messages=asks("more"))
        say(after=None)
    except openai.APIError as refused:
        say(after=error(refused))


def waits(client: openai.OpenAI, model: str) -> None:
    """One call may be open; the library waits as it is told and tries again."""
    first = client.chat.completions.create(model=model, messages=asks("first"), max_tokens=400, stream=True)
    next(first)
    say(open=True)
    raw = client.chat.completions.with_raw_response.create(model=model, messages=asks("second"), max_tokens=4)
    say(retries=raw.retries_taken, status=raw.status_code)


SCENES = [whole, streamed, other_routes, tools, responses, refusals, cut, waits]


def main() -> None:
    scene = {scene.__name__: scene for scene in SCENES}[sys.argv[1]]
    scene(openai.OpenAI(), sys.argv[2])


if __name__ == "__main__":
    main()

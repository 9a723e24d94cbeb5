"""What LangChain makes of a gateway. Each scene prints what it saw as one line of JSON; whoever started it judges.

    OPENAI_BASE_URL=… OPENAI_API_KEY=… python client_langchain.py SCENE MODEL
"""

import json
import sys

import openai
import tiktoken.registry
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.output_parsers import StrOutputParser
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def say(**seen: object) -> None:
    print(json.dumps(seen), flush=True)


def error(of: Exception) -> dict[str, object]:
    return {
        "class": type(of).__name__,
        "library": isinstance(of, openai.OpenAIError),
        "status": getattr(of, "status_code", None),
        "code": getattr(of, "code", None),
        "request": getattr(of, "request_id", None),
    }


def attempt(ask: object) -> dict[str, object] | None:
    try:
        ask()
    except Exception as refused:
        return error(refused)
    return None


def chat(model: str) -> None:
    """A chain, whole and in pieces, and several questions at a time."""
    llm = ChatOpenAI(model=model, max_tokens=6)
    chain = ChatPromptTemplate.from_messages([("human", "say {words}")]) | llm | StrOutputParser()
    answer = llm.invoke("say one two")
    pieces = list(llm.stream("say one two three"))
    last = pieces[0]
    for piece in pieces[1:]:
        last += piece
    say(
        text=answer.content,
        usage=answer.usage_metadata["total_tokens"],
        streamed=last.content,
        pieces=sum(1 for piece in pieces if piece.content),
        streamed_usage=(last.usage_metadata or {}).get("total_tokens"),
        chain=chain.invoke({"words": "three four"}),
        batch=chain.batch([{"words": word} for word in ["a", "b", "c"]]),
    )


def embeddings(model: str) -> None:
    # The library sends token numbers, of a tokenizer that it loads from the network. This one has the bytes for tokens, and the
    # place of the one that it would load.
    data = {bytes([byte]): byte for byte in range(256)}
    tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
        name="cl100k_base", pat_str=r"(?s).", mergeable_ranks=data, special_tokens={}
    )
    tokens = OpenAIEmbeddings(model=model).embed_documents(["one", "two"])
    texts = OpenAIEmbeddings(model=model, check_embedding_ctx_length=False).embed_documents(["one", "two"])
    say(tokens=[len(vector) for vector in tokens], texts=[len(vector) for vector in texts])


def refusals(model: str) -> None:
    say(
        seen=[
            attempt(lambda: ChatOpenAI(model=model, api_key="sk-wrong").invoke("hi")),
            attempt(lambda: ChatOpenAI(model="gpt-5").invoke("hi")),
            attempt(lambda: ChatOpenAI(model=model, extra_body={"made_up": 1}).invoke("hi")),
            attempt(lambda: ChatOpenAI(model=model, top_logprobs=2, logprobs=True).invoke("hi")),
            attempt(lambda: ChatOpenAI(model=model).invoke("fail 500")),
        ]
    )


def cut(model: str) -> None:
    stream = ChatOpenAI(model=model, max_tokens=100_000).stream("a long story")
    say(begun=next(stream).content)
    say(cut=attempt(lambda: [piece for piece in stream]))
    say(after=attempt(lambda: ChatOpenAI(model=model).invoke("more")))
    # Nor does it matter how often it would try.
    say(patient=attempt(lambda: ChatOpenAI(model=model, max_retries=6).invoke("more")))


def asks(model: str) -> None:
    """One question."""
    say(asking=True)
    answers: list[str] = []
    failed = attempt(lambda: answers.append(ChatOpenAI(model=model).invoke("say one two").content))
    say(answers=answers, failed=failed)


SCENES = [chat, embeddings, refusals, cut, asks]


def main() -> None:
    scene = {scene.__name__: scene for scene in SCENES}[sys.argv[1]]
    scene(sys.argv[2])


if __name__ == "__main__":
    main()

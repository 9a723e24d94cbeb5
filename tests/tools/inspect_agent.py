"""An agent task for Inspect AI: the model asks for tools, sees what they return, and submits. Whoever starts it scripts the model."""

from inspect_ai import Task, task
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.tool import Tool, bash, tool


@tool
def doubled() -> Tool:
    async def execute(number: int) -> str:
        """Doubles a number.

        Args:
            number: The number.
        """
        return f"the double is {2 * number}"

    return execute


@task
def lines() -> Task:
    # What the tools return is in no prompt, so an answer that is right went through them.
    dataset = [
        Sample(id="short", input="Twice how many lines has the short poem?", target="6", files={"short.txt": "a\nb\nc\n"}),
        Sample(id="long", input="Twice how many lines has the long poem?", target="14", files={"long.txt": "a\n" * 7}),
    ]
    return Task(
        dataset=dataset,
        solver=react(tools=[bash(timeout=60), doubled()]),
        scorer=match(location="exact"),
        sandbox="local",
        message_limit=20,
    )

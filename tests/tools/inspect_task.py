"""A task for Inspect AI whose answers are known: the model server says what it is told to say."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate


@task
def echoes(samples: int = 3) -> Task:
    dataset = [Sample(id=f"s{number}", input=f"say number {number}", target=f"number {number}") for number in range(samples)]
    return Task(dataset=dataset, solver=generate(), scorer=includes())

"""What Inspect finds by this package's entry point."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="anteroom")
def anteroom() -> type[ModelAPI]:
    # Imported when a model is asked for: loading Inspect must not wait for it.
    from .provider import AnteroomAPI

    return AnteroomAPI

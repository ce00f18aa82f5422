"""Runs in the engine's worker: tells what its handler still holds, at `custom_request("count")`."""


def start(handler):
    """Replace the handler's custom request."""

    def count(_name, _message):
        held = {"streams": len(handler.owner.streams), "tasks": len(handler.owner.tasks)}
        handler.post_message({"kind": "held", "uuid": "", "content": held})

    handler.custom_request = count

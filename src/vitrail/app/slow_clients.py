"""Receiving what is sent in reasonable time, and refusing it in a sentence."""

import asyncio

from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

PATIENCE = 15.0
"""Seconds without a single byte of what is being sent."""

SLOWEST = 25_000
"""Bytes a second: who sends more slowly takes the room of others."""


class TooSlowError(Exception):
    """What was announced did not come in time."""


def steadily(receive: Receive, length: int) -> Receive:
    """Receive so many bytes, but not from somebody who never sends them.

    Raises:
        TooSlowError: By the function that is returned.
    """
    loop = asyncio.get_running_loop()
    end, whole = loop.time() + PATIENCE + length / SLOWEST, False

    async def next_message() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(min(PATIENCE, end - loop.time()), 0))
        except TimeoutError as error:
            raise TooSlowError from error
        whole = not message.get("more_body")
        return message

    return next_message


async def refuse(code: int, words: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request by a sentence.

    Args:
        code: Status of HTTP.
        words: What was expected, what came, and what to do.
        scope: Of the request.
        receive: Of the request.
        send: Of the request.
    """
    await PlainTextResponse(words + "\n", code)(scope, receive, send)

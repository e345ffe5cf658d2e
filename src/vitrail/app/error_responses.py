"""What is answered where the kit fails."""

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.app.slow_clients import refuse

logger = logging.getLogger(__name__)


class Failures:
    """Answers by a sentence where the kit fails, and ends a stream of messages that the kit broke off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = streams = False

        async def watch(message: Message) -> None:
            nonlocal started, streams
            if message["type"] == "http.response.start":
                started = True
                streams = any(
                    name.lower() == b"content-type" and b"event-stream" in value for name, value in message["headers"]
                )
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            logger.debug("a visitor left while sending")
        except Exception as error:
            if scope["type"] == "http" and not started:
                logger.exception("a request failed: %s %s", scope["method"], scope["path"])
                await refuse(500, "something went wrong on the server, and was written to its log", scope, receive, send)
            elif streams:
                # The kit tells it in a message of the stream, then raises it: a visitor who left, or is not known any more.
                logger.debug("a stream of messages ended early: %r", error)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                raise

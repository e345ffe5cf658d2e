"""Error responses: one sentence each, also if Gradio fails."""

import logging

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


async def send_error(code: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond to a request with an error.

    Args:
        code: HTTP status.
        message: What was expected, what came, and what to do.
        scope: Scope of the request.
        receive: Channel of the request.
        send: Channel of the response.
    """
    await PlainTextResponse(message + "\n", code)(scope, receive, send)


class ErrorResponses:
    """Middleware that sends an error if Gradio fails, and ends event streams that Gradio left open."""

    # Not Starlette's `ServerErrorMiddleware`: that raises the error again, which ends a stream without its last chunk and writes a
    # traceback to the log for every client that leaves.

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = is_stream = False

        async def watch(message: Message) -> None:
            nonlocal started, is_stream
            if message["type"] == "http.response.start":
                started = True
                is_stream = any(
                    name.lower() == b"content-type" and b"event-stream" in value for name, value in message["headers"]
                )
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            logger.debug("a client disconnected while sending")
        except Exception as error:
            if scope["type"] == "http" and not started:
                logger.exception("a request failed: %s %s", scope["method"], scope["path"])
                await send_error(500, "something went wrong on the server, and was written to its log", scope, receive, send)
            elif is_stream:
                # Gradio reports the error in the stream, then raises it: the client left, or its session was dropped.
                logger.debug("an event stream ended early: %r", error)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                raise

"""Middleware before Gradio: reads the whole body of a request, checks it, and reserves room for the answer."""

from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitrail.app.allowlist import CALL, DATA, UPLOAD
from vitrail.app.pending_results import Unread
from vitrail.app.requests import Question, Questions, RefusedError
from vitrail.app.slow_clients import TooSlowError, refuse


class Bodies:
    """Passes on the questions that the page's functions can take, and minds who fetches the answers.

    Args:
        app: What is guarded.
        questions: What may be asked.
        unread: Answers that wait to be fetched.
    """

    def __init__(self, app: ASGIApp, questions: Questions, unread: Unread) -> None:
        self._app, self._questions, self._unread = app, questions, unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == UPLOAD:
            await self._app(scope, receive, send)
        elif scope["method"] == "POST":
            await self._ask(scope, receive, send)
        elif found := CALL.fullmatch(scope["path"]):
            if self._unread.is_known(found["event"]):
                await self._fetch(found["event"], scope, receive, send)
            else:
                await refuse(
                    404, "there is no such question, or its answer was fetched already; ask again", scope, receive, send
                )
        elif scope["path"] == DATA:
            asker = parse_qs(scope["query_string"].decode()).get("session_hash")
            if asker:
                await self._fetch(asker[0], scope, receive, send)
            else:
                await refuse(400, "expected a session_hash behind the address, got none", scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _fetch(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        with self._unread.fetching(name):
            await self._app(scope, receive, send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _whole(receive)
            if body is None:
                return
            question = self._questions.check(scope["path"], body)
            if question.joins:
                await self._unread.make_room(question.asker)
        except TooSlowError:
            await refuse(408, "expected a question, got nothing for too long; ask again", scope, receive, send)
        except RefusedError as error:
            await refuse(error.code, str(error), scope, receive, send)
        else:
            await self._app(_told(scope, question), _once(question.body, receive), send)


async def _whole(receive: Receive) -> bytes | None:
    """Everything that is sent; None from somebody who went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _told(scope: Scope, question: Question) -> Scope:
    # What the kit reads is what was checked, whatever it was called.
    fields = [each for each in scope["headers"] if each[0] not in (b"content-type", b"content-length", b"content-encoding")]
    fields += [(b"content-type", b"application/json"), (b"content-length", str(len(question.body)).encode())]
    return {**scope, "headers": fields}


def _once(body: bytes, receive: Receive) -> Receive:
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

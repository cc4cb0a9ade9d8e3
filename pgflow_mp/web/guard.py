"""Who may ask for what: before anything else looks at a request.

The name in the Host header is checked against DNS rebinding, the token against strangers, Origin,
Sec-Fetch-Site and the form's mark against other sites; every answer gets headers that forbid scripts and
frames of others.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgflow_mp.web.page_settings import PageSettings
from pgflow_mp.web.tokens import Keys

LARGEST_FORM: Final = 256 << 10
"""Bytes: a thousand runs by their ids."""
LONGEST_QUERY: Final = 4096
LARGEST_HEAD: Final = 32 << 10
ENTRANCE: Final = "/enter"
_OPEN: Final = ("/assets/", "/healthz")
"""What strangers may see: nothing of it is about runs."""
_WITHOUT_ORIGIN: Final = ("same-origin", "none")
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "X-Robots-Tag": "noindex, nofollow",
}


class Guard:
    """Lets requests through to ``app`` that may be answered; the others it answers itself."""

    def __init__(self, app: ASGIApp, settings: PageSettings) -> None:
        self._app = app
        self._settings = settings
        self._names = settings.names()
        self._keys = None if settings.token is None else Keys(settings.token)
        self._cookie = f"pgflow_mp_{settings.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no websockets here

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._judge(scope)
        if answer is not None:
            await answer(scope, receive, guarded_send)
            return
        await self._app(scope, _bounded(receive), guarded_send)

    def _judge(self, scope: Scope) -> Response | None:
        """An answer to a request that goes no further; None if it may."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        if not self._is_our_name(headers.getlist("host")):
            return _refusal(
                421,
                "This page is not served under the name in the Host header.\n"
                "Start it with --allowed-host NAME if it is to be.",
            )
        if method not in ("GET", "HEAD", "POST"):
            return _refusal(405, "Only GET, HEAD and POST are answered.", Allow="GET, HEAD, POST")
        if len(scope.get("query_string", b"")) > LONGEST_QUERY:
            return _refusal(414, "The query is too long.")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > LARGEST_HEAD:
            return _refusal(431, "The headers are too long.")
        scope["pgflow.session"] = scope["pgflow.mark"] = ""
        if self._keys is not None and not path.startswith(_OPEN):
            if path == ENTRANCE:
                return None if method == "POST" and _is_same_origin(headers) else self._enter(scope)
            session = self._session(headers)
            if session is None:
                return self._stranger(scope, headers)
            scope["pgflow.session"] = session
            scope["pgflow.mark"] = self._keys.form_mark(session) if session else ""
        if method == "POST":
            return self._judge_post(headers)
        return None

    def _judge_post(self, headers: Headers) -> Response | None:
        if not self._settings.allow_actions:
            return _refusal(403, "This page is read-only: it was started without --allow-actions.")
        if not _is_same_origin(headers):
            return _refusal(403, "The request comes from another site.")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return _refusal(415, "Only forms are taken.")
        if not headers.get("content-length", "").isdigit():
            return _refusal(411, "Content-Length is missing.")
        if int(headers["content-length"]) > LARGEST_FORM:
            return _refusal(413, "The form is too large.")
        return None

    def _is_our_name(self, hosts: list[str]) -> bool:
        """Exactly one Host, and an address or a name of ours: rebinding needs a name of somebody else."""
        if len(hosts) != 1:
            return False
        try:
            parts = urlsplit(f"//{hosts[0]}")
            name, _ = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return False
        if parts.path or parts.query or parts.fragment or parts.username is not None:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    # -- tokens -----------------------------------------------------------------------------------------

    def _session(self, headers: Headers) -> str | None:
        """The visitor's session; empty for one who shows the token itself, None for a stranger."""
        assert self._keys is not None  # noqa: S101
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._keys.is_token(shown.strip()):
            return ""
        found = cookie_parser("; ".join(headers.getlist("cookie"))).get(self._cookie, "")
        return found if self._keys.is_session(found) else None

    def _enter(self, scope: Scope) -> Response | None:
        """The token in the link that ``serve`` prints becomes a cookie, and leaves the address line."""
        shown = Request(scope).query_params.get("token")
        if scope["method"] == "POST":
            return _refusal(403, "The request comes from another site.")
        if shown is None:
            return None  # the form that asks for it
        return self.admitted(shown, "/") or _refusal(403, "This is not the token.")

    def admitted(self, shown: str, then: str) -> Response | None:
        """The way in for who shows the token; None for others."""
        if self._keys is None or not self._keys.is_token(shown):
            return None
        answer = RedirectResponse(then, status_code=303)
        answer.set_cookie(self._cookie, self._keys.new_session(), path="/", httponly=True, samesite="strict")
        return answer

    def is_form(self, scope: Scope, mark: str) -> bool:
        """Whether a form was drawn here, for this visitor. One who shows the token itself needs no mark."""
        session: str = scope["pgflow.session"]
        return self._keys is not None and (session == "" or self._keys.is_form_mark(mark, session))

    @staticmethod
    def _stranger(scope: Scope, headers: Headers) -> Response:
        if "text/html" in headers.get("accept", "") and scope["method"] == "GET":
            then = scope["path"] + ("?" + scope["query_string"].decode("latin-1")) * bool(
                scope["query_string"]
            )
            return RedirectResponse(f"{ENTRANCE}?then={quote(then, safe='')}", status_code=303)
        return _refusal(401, "The token is missing.", **{"WWW-Authenticate": "Bearer"})


def safe_way(then: str) -> str:
    """Where to go on after the entrance: a path of ours, never another site."""
    parts = urlsplit(then)
    ours = then.startswith("/") and not then.startswith(("//", "/\\")) and not parts.netloc
    return then if ours and then.isprintable() and "\\" not in then else "/"


def _is_same_origin(headers: Headers) -> bool:
    """Whether a browser says that our own page sent this; who is none says nothing, and has no cookie."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in _WITHOUT_ORIGIN:
        return False
    origin = headers.get("origin")
    if origin is None:
        return site is not None or "cookie" not in headers
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == headers.get("host", "").lower()


def _bounded(receive: Receive) -> Receive:
    """A body that is no longer than a form may be, whatever Content-Length says."""
    read = 0

    async def bounded() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > LARGEST_FORM:
            return {"type": "http.disconnect"}
        return message

    return bounded


def _refusal(status: int, text: str, **headers: Any) -> Response:
    return PlainTextResponse(text + "\n", status_code=status, headers=headers)

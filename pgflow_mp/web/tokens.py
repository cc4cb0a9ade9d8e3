"""What a visitor shows: the token itself, a cookie made of it, and in forms a mark made of the cookie.

Nothing is kept: all is derived from the token, and is void with it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

_NONCE: Final = 32  # hex digits


class Keys:
    """What is derived from one token."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def is_token(self, text: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token)

    def new_session(self) -> str:
        """The value of a cookie, another one for each browser."""
        nonce = secrets.token_hex(_NONCE // 2)
        return f"{nonce}.{self._sign('session', nonce)}"

    def is_session(self, text: str) -> bool:
        """Whether a cookie was made here."""
        nonce, _, signature = text.partition(".")
        return len(nonce) == _NONCE and _same(signature, self._sign("session", nonce))

    def form_mark(self, session: str) -> str:
        """What a form has to send along: other sites cannot read it, and it fits no other browser."""
        return self._sign("form", session)

    def is_form_mark(self, text: str, session: str) -> bool:
        """Whether a form was drawn for this session."""
        return _same(text, self.form_mark(session))

    def _sign(self, purpose: str, text: str) -> str:
        said = f"{purpose}\0{text}".encode("utf-8", "replace")
        return hmac.new(self._token, said, hashlib.sha256).hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))

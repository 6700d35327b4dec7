"""Who asks for a promotion: the user that the API server knows, and the user of this machine."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx2
from lightkube.resources.authentication_v1 import SelfSubjectReview

if TYPE_CHECKING:
    from lightkube import AsyncClient


async def who(client: AsyncClient) -> str:
    """Name who asks, such as `alice@example.com (alice@laptop)`; an API server before 1.28 does not tell its part."""
    here = f"{_user()}@{socket.gethostname()}"
    with suppress(httpx2.HTTPError):
        review = await client.create(SelfSubjectReview())
        user = review.status.userInfo if review.status else None
        if user and user.username:
            return f"{user.username} ({here})"
    return here


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())

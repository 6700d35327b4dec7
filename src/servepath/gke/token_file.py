"""The access token in a file that is renewed for as long as a run takes.

Google's tokens hold for an hour, a canary may take two. Who needs the token is told the file: a kubeconfig's
`tokenFile`, which lightkube reads again after a 401 and kubectl once a minute, and the registry client, which reads it
at each challenge.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import anyio

from servepath.errors import ServepathError

if TYPE_CHECKING:
    from pathlib import Path

    from servepath.gke.credentials import GoogleCredentials, Token

logger = logging.getLogger(__name__)


def write_private(path: Path, text: str) -> None:
    """Put a file in place at once, readable by its owner alone: who reads it meanwhile gets the old or the new one."""
    incoming = path.with_name(f".{path.name}.incoming")
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    incoming.replace(path)


async def keep_fresh(credentials: GoogleCredentials, path: Path, written: Token) -> None:
    """Renew the token in a file until cancelled.

    A failure is told in the log and tried again at the next look: the token that is there may hold for minutes, and
    a promotion is not given up for an outage that is over before then.
    """
    while True:
        await anyio.sleep(credentials.options.look_every_s)
        try:
            token = await credentials.token()
            if token.value != written.value:
                write_private(path, token.value)
                written = token
        except (ServepathError, OSError) as error:
            left_s = written.expires_at - time.time()
            logger.warning("%s (the present token %s)", error, f"holds {left_s:.0f} s" if left_s > 0 else "expired")

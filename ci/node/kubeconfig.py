"""Kubeconfig files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.pki import Authority, KeyPair


def write(path: Path, server: str, authority: Authority, client: KeyPair) -> Path:
    """Write a kubeconfig for `client`; JSON, which is YAML too. It refers to the certificates' files."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "servepath",
        "contexts": [{"name": "servepath", "context": {"cluster": "servepath", "user": "servepath"}}],
        "clusters": [
            {
                "name": "servepath",
                "cluster": {"server": server, "certificate-authority": str(authority.pair.certificate)},
            }
        ],
        "users": [
            {
                "name": "servepath",
                "user": {"client-certificate": str(client.certificate), "client-key": str(client.key)},
            }
        ],
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=2))
    return path

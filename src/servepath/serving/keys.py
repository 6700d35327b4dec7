"""The Secret that holds an engine's key, and what tells one version of it from the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.cluster.objects import MANAGED_BY, OWNER, Json, apply, ensure_namespace
from servepath.errors import UsageError

if TYPE_CHECKING:
    from lightkube import AsyncClient


async def apply_key(client: AsyncClient, name: str, namespace: str, api_key: str) -> dict[str, str]:
    """Apply the Secret of a path, in a namespace that is made where it is not there.

    Returns:
        An annotation for its pods. A new key changes it, so that the engine starts again with that; the same does not.

    Raises:
        UsageError: it is no key.
        ClusterError: the API server refuses.
    """
    if not api_key or api_key != api_key.strip():
        raise UsageError("the API key is empty or has spaces around it", where="VLLM_API_KEY", expected="a key")
    await ensure_namespace(client, namespace)
    secret = await apply(client, _secret(name, namespace, api_key))
    return {"servepath.dev/secret-version": secret["metadata"]["resourceVersion"]}


def _secret(name: str, namespace: str, api_key: str) -> Json:
    labels = {
        "app.kubernetes.io/name": "vllm",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/part-of": OWNER,
        MANAGED_BY: OWNER,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "stringData": {"VLLM_API_KEY": api_key},
    }

"""A kubeconfig -> a Kubernetes client, and the client's errors -> ClusterError."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import httpx2
import msgspec
import yaml
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lightkube.config.kubeconfig import SingleConfig

    from servepath.cluster.model import Cluster

FIELD_MANAGER = "servepath"
"""The owner of fields in server-side apply."""


@asynccontextmanager
async def kubernetes(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    """Open a client for a cluster; the kubeconfig is read, never written.

    Raises:
        ClusterError: the kubeconfig cannot be used, or (inside the block) the API server cannot be reached or refuses.
    """
    config = read_kubeconfig(cluster)
    where = f"Kubernetes API {config.cluster.server}"
    with errors_of(where):
        try:
            client = AsyncClient(config=config, field_manager=FIELD_MANAGER)
        except (AssertionError, ssl.SSLError, OSError, ValueError) as error:
            raise ClusterError(
                f"the context {config.context_name!r} cannot be used: {error}", where=str(cluster.kubeconfig)
            ) from error
        async with client:
            yield client


def read_kubeconfig(cluster: Cluster) -> SingleConfig:
    """Read the cluster's context from its kubeconfig.

    Raises:
        ClusterError: the file is missing, is no kubeconfig, or has no such context.
    """
    where = str(cluster.kubeconfig)
    try:
        config = KubeConfig.from_file(cluster.kubeconfig).get(cluster.context or None)
    except (ConfigError, OSError) as error:
        raise ClusterError(str(error), where=where, next_command=f"ls -l {where}") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, msgspec.ValidationError) as error:
        raise ClusterError(
            f"not a kubeconfig: {type(error).__name__}: {error}".partition("\n")[0],
            where=where,
            next_command=f"kubectl --kubeconfig {where} config get-contexts",
        ) from error
    if config is None:
        raise ClusterError("no current context", where=where, expected="--context NAME, or a current context")
    return config


@contextmanager
def errors_of(where: str) -> Iterator[None]:
    """Turn what the client raises into ClusterError, with the API server's own words."""
    try:
        yield
    except ApiError as error:
        raise api_error(error, where) from error
    except httpx2.HTTPStatusError as error:
        raise ClusterError(f"HTTP {error.response.status_code}", where=where) from error
    except httpx2.TransportError as error:
        raise ClusterError(
            f"the Kubernetes API does not answer: {error or type(error).__name__}",
            where=where,
            next_command="kubectl cluster-info",
        ) from error
    except ConfigError as error:
        raise ClusterError(str(error), where=where) from error


def api_error(error: ApiError, where: str) -> ClusterError:
    """Turn a refusal of the API server (or of one of its admission webhooks) into ClusterError."""
    status = error.status
    what = str(status.message or status.reason or error)
    if "admission webhook" in what and "denied the request" in what:
        what = f"refused by a webhook: {what}"
    return ClusterError(what, where=where)

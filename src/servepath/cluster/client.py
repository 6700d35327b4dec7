"""A kubeconfig -> a Kubernetes client, and the client's errors -> ClusterError."""

from __future__ import annotations

import shlex
import ssl
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import msgspec
import yaml
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError

from servepath.errors import ClusterError, ServepathError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lightkube.config.kubeconfig import SingleConfig

    from servepath.cluster.model import Cluster

FIELD_MANAGER = "servepath"
_BUSY = (429, 502, 503, 504)
"""The owner of fields in server-side apply."""


@asynccontextmanager
async def kubernetes(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    """Open a client for a cluster; the kubeconfig is read, never written.

    Raises:
        ClusterError: the kubeconfig cannot be used, or (inside the block) the API server cannot be reached or refuses.
    """
    config = read_kubeconfig(cluster)
    where = f"Kubernetes API {config.cluster.server}"
    with _hints_for(cluster), errors_of(where):
        _refuse_missing_files(cluster, config)
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


def _refuse_missing_files(cluster: Cluster, config: SingleConfig) -> None:
    """Name the certificate, key or token file that a kubeconfig names and that is not there: TLS would not say which.

    Raises:
        ClusterError: there is one.
    """
    user = config.user
    named = {
        "certificate-authority": config.cluster.certificate_auth,
        "client-certificate": user.client_cert if user else None,
        "client-key": user.client_key if user else None,
        "tokenFile": user.token_file if user else None,
    }
    for field, name in named.items():
        if name and not (path := Path(config.abs_file(name))).is_file():
            raise ClusterError(
                f"its {field} is not there: {path}",
                where=str(cluster.kubeconfig),
                expected=f"the file that the context {config.context_name!r} names",
                next_command=f"ls -l {shlex.quote(str(path))}",
            )


@contextmanager
def _hints_for(cluster: Cluster) -> Iterator[None]:
    """Make every kubectl command of an error one for this cluster: the user's own context may be another's."""
    try:
        yield
    except (ServepathError, BaseExceptionGroup) as error:
        _point(error, cluster)
        raise


def _point(error: BaseException, cluster: Cluster) -> None:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _point(inner, cluster)
    elif isinstance(error, ServepathError):
        error.next_command = kubectl_for(cluster, error.next_command)


def kubectl_for(cluster: Cluster, command: str) -> str:
    """Give a kubectl command with the cluster's kubeconfig and context; any other command as it is."""
    if not command.startswith("kubectl ") or "--kubeconfig" in command:
        return command
    options = f"--kubeconfig {shlex.quote(str(cluster.kubeconfig))}"
    if cluster.context:
        options += f" --context {shlex.quote(cluster.context)}"
    return f"kubectl {options} {command.removeprefix('kubectl ')}"


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


def is_passing(error: BaseException | None, *also: int) -> bool:
    """Tell a cut connection and a busy API server from a refusal.

    A busy one, and what stands before it, answers in plain text, which gives no ApiError; nor does any refusal of a
    watch (lightkube 1.0.1, `watch` in core/generic_client.py). An event that ends a watch has a status alone.

    Args:
        error: what the client raised.
        also: more statuses that another attempt may change.
    """
    if isinstance(error, httpx2.HTTPStatusError):
        if isinstance(error, ApiError) and error.response is None:
            return error.status.code in (*_BUSY, *also)
        return error.response.status_code in (*_BUSY, *also)
    return isinstance(error, httpx2.TransportError)


def api_error(error: ApiError, where: str) -> ClusterError:
    """Turn a refusal of the API server (or of one of its admission webhooks) into ClusterError."""
    status = error.status
    what = str(status.message or status.reason or error)
    if "admission webhook" in what and "denied the request" in what:
        what = f"refused by a webhook: {what}"
    return ClusterError(what, where=where)

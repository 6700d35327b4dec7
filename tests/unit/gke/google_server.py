"""The few Google APIs that servepath asks, on one loopback port, and an API server that knows Google's tokens.

It is what Google's own client libraries talk to in these tests: token exchange (STS), service account impersonation,
Kubernetes Engine, Artifact Registry and Compute Engine over REST, and GitHub's endpoint for identity tokens. A token
that it did not hand out, or that it has taken back, opens nothing.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ci.node.pki import KeyPair

PROJECT, REGION, ZONE = "acme-models", "europe-west4", "europe-west4-a"
AUDIENCE = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/github/providers/servepath"
ACCOUNT = "promoter@acme-models.iam.gserviceaccount.com"
SUBJECT_TOKEN = "identity.of.the.workflow"
CLUSTER: dict[str, Any] = {
    "name": "models",
    "status": "RUNNING",
    "endpoint": "34.1.2.3",
    "currentMasterVersion": "1.34.1-gke.100",
    "locations": [ZONE, "europe-west4-b"],
    "masterAuth": {"clusterCaCertificate": base64.b64encode(b"a certificate").decode()},
    "nodePools": [
        {"name": "default", "config": {"machineType": "e2-standard-4", "diskSizeGb": 100}},
        {
            "name": "l4",
            "config": {
                "machineType": "g2-standard-8",
                "diskSizeGb": 200,
                "spot": True,
                "accelerators": [{"acceleratorCount": "1", "acceleratorType": "nvidia-l4"}],
                "gcfsConfig": {"enabled": True},
                "oauthScopes": ["https://www.googleapis.com/auth/devstorage.read_only"],
                "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}],
            },
            "autoscaling": {"enabled": True, "minNodeCount": 0, "maxNodeCount": 2},
        },
    ],
}
REPOSITORY: dict[str, Any] = {"format": "DOCKER", "mode": "STANDARD_REPOSITORY"}
QUOTAS: dict[str, Any] = {"quotas": [{"metric": "NVIDIA_L4_GPUS", "limit": 4, "usage": 1}]}
Answer = tuple[int, dict[str, Any]]


def failure(code: int, status: str, message: str, reason: str = "", service: str = "") -> Answer:
    """An error as Google's REST APIs write it (https://cloud.google.com/apis/design/errors)."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
    details = [{**info, "metadata": {"service": service}}] if reason else []
    return code, {"error": {"code": code, "status": status, "message": message, "details": details}}


UNAUTHENTICATED = failure(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
UNAUTHORIZED: Answer = (401, {"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401})
"""As an API server says it."""


@dataclass
class Google:
    """What the server answers, what it was asked, and the tokens that it has handed out.

    Attributes:
        resources: the answer to a GET of a path.
        faults: answers that come first, by path, each once.
        lifetime_s: of the access tokens that are handed out.
        good: the tokens that open something.
        asked: the paths, in order.
    """

    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, list[Answer]] = field(default_factory=dict)
    lifetime_s: int = 3600
    good: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    mint: Callable[[int], str] = "token-{}".format
    _made: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def hand_out(self) -> str:
        """Make a new token that opens everything."""
        with self._lock:
            self._made += 1
            token = self.mint(self._made)
            self.good.add(token)
            return token

    def answer(self, method: str, url: str, headers: Any, body: bytes) -> Answer:
        path = urlsplit(url).path
        self.asked.append(path)
        if self.faults.get(path):
            return self.faults[path].pop(0)
        if path == "/subject":
            return 200, {"value": SUBJECT_TOKEN}
        if path == "/sts/v1/token":
            return self._exchange({name: values[0] for name, values in parse_qs(body.decode()).items()})
        if self._key(headers.get("Authorization", "")) not in self.good:
            return UNAUTHORIZED if path.startswith("/api") else UNAUTHENTICATED
        return self._resource(method, path)

    def _resource(self, method: str, path: str) -> Answer:
        if method == "POST" and path.endswith(f"/serviceAccounts/{ACCOUNT}:generateAccessToken"):
            expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lifetime_s))
            return 200, {"accessToken": self.hand_out(), "expireTime": expires}
        if path in self.resources:
            return 200, self.resources[path]
        return failure(404, "NOT_FOUND", f"Not found: {path}")

    @staticmethod
    def _key(authorization: str) -> str:
        """The token of a request: a bearer's, or the password of Artifact Registry's user."""
        scheme, _, value = authorization.partition(" ")
        if scheme != "Basic":
            return value
        user, _, password = base64.b64decode(value).decode().partition(":")
        return password if user == "oauth2accesstoken" else ""

    def _exchange(self, form: dict[str, str]) -> Answer:
        if form["audience"] != AUDIENCE:
            said = "The audience in the request does not match any provider."
            return 400, {"error": "invalid_target", "error_description": said}
        if form["subject_token"] != SUBJECT_TOKEN:
            return 400, {"error": "invalid_grant", "error_description": "The subject token is stale."}
        issued = "urn:ietf:params:oauth:token-type:access_token"
        token = {"access_token": self.hand_out(), "expires_in": self.lifetime_s}
        return 200, {**token, "token_type": "Bearer", "issued_token_type": issued}


class GoogleServer(ThreadingHTTPServer):
    """Serves a `Google`; with a key pair over TLS, as an API server does."""

    def __init__(self, google: Google, tls: KeyPair | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.google = google
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GoogleServer

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, document = self.server.google.answer(self.command, self.path, self.headers, body)
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if status == HTTPStatus.UNAUTHORIZED and self.path.startswith("/v2/"):
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = _handle  # noqa: N815 - the names of the standard library

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def federated(folder: Path, base_url: str, *, audience: str = AUDIENCE, impersonates: bool = True) -> Path:
    """Write the credentials file that google-github-actions/auth makes of Workload Identity Federation."""
    document = {
        "type": "external_account",
        "audience": audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{base_url}/sts/v1/token",
        "credential_source": {
            "url": f"{base_url}/subject",
            "headers": {"Authorization": "Bearer request-token"},
            "format": {"type": "json", "subject_token_field_name": "value"},
        },
    }
    if impersonates:
        path = f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
        document["service_account_impersonation_url"] = base_url + path
    file = folder / "credentials.json"
    file.write_text(json.dumps(document))
    return file

"""Whether the promotion may push, as registries answer on a first promotion, and what a node's denial is then worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.evidence import Verdict
from servepath.modelcar.content import digest_of_bytes
from servepath.modelcar.registry.client import open_registry
from servepath.modelcar.registry.credentials import Credentials
from servepath.modelcar.registry.repository import Repository
from servepath.modelcar.store import Document
from servepath.promotion.preflight.probe import judge_pull, pull_secret
from servepath.promotion.preflight.push import check_push
from tests.unit.modelcar.faults import Faults, Rule

if TYPE_CHECKING:
    from servepath.modelcar.registry.client import RegistryOptions

pytestmark = pytest.mark.anyio

ALWAYS = 99
DIGEST = "sha256:" + "a" * 64
DENIED = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
NAME_UNKNOWN = b'{"errors":[{"code":"NAME_UNKNOWN","message":"does not exist in the registry"}]}'
HIDDEN = [Rule("GET|HEAD", "/v2/", ALWAYS, status=403, body=DENIED)]
SHUT = [Rule(".*", "/v2/", ALWAYS, status=401, body=DENIED)]
ABSENT = [Rule(".*", "/v2/", ALWAYS, status=404, body=NAME_UNKNOWN)]
CUT = [Rule("POST", "/v2/", ALWAYS, drop_after_bytes=0), *ABSENT]
DOWN = [Rule(".*", "/v2/", ALWAYS, status=503)]


def fresh(rules: list[Rule]) -> list[Rule]:
    """Give rules that no other test has used up."""
    return [replace(rule) for rule in rules]


@pytest.mark.parametrize(
    ("rules", "verdict", "seen", "may_make_it"),
    [
        ([], Verdict.PASS, "an upload was begun; it is cancelled again", True),
        (HIDDEN, Verdict.PASS, "an upload was begun; it is cancelled again", True),
        (SHUT, Verdict.FAIL, "beginning an upload: the registry answered 401", True),
        (ABSENT, Verdict.FAIL, "beginning an upload: the registry answered 404", True),
        (DOWN, Verdict.SKIP, "failed 3 times", True),
    ],
    ids=["makes it", "reads are denied", "no right to push", "no place for it", "out"],
)
async def test_a_first_push(
    faults: Faults,
    options: RegistryOptions,
    repository: str,
    rules: list[Rule],
    verdict: Verdict,
    seen: str,
    *,
    may_make_it: bool,
) -> None:
    faults.rules = fresh(rules)
    pushing = await check_push(f"{faults.host}/{repository}@{DIGEST}", options)
    assert pushing.result.verdict is verdict
    assert seen in pushing.result.seen
    assert pushing.may_make_it is may_make_it
    if rules is SHUT:
        assert pushing.result.next_command == f"docker login {faults.host}"


async def test_a_push_needs_credentials_that_may_push(
    faults: Faults, options: RegistryOptions, repository: str
) -> None:
    faults.token, faults.basic = "t", "who:right"
    image = f"{faults.host}/{repository}@{DIGEST}"
    wrong = await check_push(image, replace(options, credentials={faults.host: Credentials("who", "wrong")}))
    assert wrong.result.verdict is Verdict.FAIL
    assert "token service answered 401" in wrong.result.seen
    right = await check_push(image, replace(options, credentials={faults.host: Credentials("who", "right")}))
    assert right.result.verdict is Verdict.PASS
    assert faults.count("POST", "/blobs/uploads/") == faults.count("DELETE", "/blobs/uploads/") + 2
    assert "pull%2Cpush" in faults.token_requests[-1]


async def test_what_is_there_is_not_pushed(faults: Faults, options: RegistryOptions, repository: str) -> None:
    kind = "application/vnd.oci.image.index.v1+json"
    data = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % kind.encode()
    async with open_registry(faults.host, options) as client:
        target = Repository(client, repository)
        document = Document(kind, digest_of_bytes(data), data)
        await target.write_manifest(document, "v1")
    there = await check_push(f"{faults.host}/{repository}@{document.digest}", options)
    assert (there.result.verdict, there.result.seen) == (Verdict.PASS, "it is there already: nothing is pushed")
    other = await check_push(f"{faults.host}/{repository}@{DIGEST}", options)
    assert (other.result.verdict, other.may_make_it) == (Verdict.PASS, False)


CREATE = "gcloud artifacts repositories create"
ECR, GOOGLE = "1234.dkr.ecr.eu-west-1.amazonaws.com", "europe-west4-docker.pkg.dev"


@pytest.mark.parametrize(
    ("host", "rules", "fix"),
    [
        (ECR, CUT, "aws ecr create-repository --region eu-west-1 --repository-name acme/models/smol"),
        (ECR, ABSENT, "aws ecr create-repository --region eu-west-1 --repository-name acme/models/smol"),
        (ECR, SHUT, f"docker login {ECR}"),
        (GOOGLE, ABSENT, f"{CREATE} models --repository-format=docker --project acme --location europe-west4"),
    ],
    ids=["ECR cuts off", "ECR says so", "ECR denies", "Artifact Registry"],
)
async def test_a_repository_that_no_push_makes(
    faults: Faults,
    options: RegistryOptions,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    rules: list[Rule],
    fix: str,
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{faults.host}")
    faults.rules = fresh(rules)
    plain = replace(options, plain_http=frozenset({host}))
    pushing = await check_push(f"{host}/acme/models/smol@{DIGEST}", plain)
    assert (pushing.result.verdict, pushing.result.next_command) == (Verdict.FAIL, fix)
    assert not pushing.may_make_it, "a denial there is one of what the repository is in"


PULL = 'failed to resolve reference "ghcr.io/acme/x@sha256:0": '


@pytest.mark.parametrize(
    "said",
    [
        "failed to authorize: failed to fetch oauth token: unexpected status from GET request: 403 Forbidden",
        "pull access denied, repository does not exist or may require authorization: insufficient_scope",
        "unexpected status from HEAD request: 401 Unauthorized",
    ],
    ids=["ghcr.io", "Docker Hub", "Harbor"],
)
def test_a_denial_before_the_repository_is_there_refuses_no_promotion(said: str) -> None:
    fix = pull_secret("kubectl", "demo", "ghcr.io/acme/x")
    first = judge_pull("n", PULL + said, "a node that pulls", "kubectl get events", fix, may_be_made=True)
    assert first.verdict is Verdict.SKIP
    assert "the copy makes it, and if it is private then, no pod starts without a secret" in first.seen
    assert "create secret docker-registry servepath-pull --docker-server=ghcr.io" in first.next_command
    later = judge_pull("n", PULL + said, "a node that pulls", "kubectl get events", fix)
    assert (later.verdict, later.next_command) == (Verdict.FAIL, fix)
    assert "--docker-server=https://index.docker.io/v1/" in pull_secret("kubectl", "demo", "docker.io/acme/x")

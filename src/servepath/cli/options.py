"""The options that several commands share, with their documentation and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Source: TypeAlias = Annotated[
    Path | None, typer.Option(help="Model directory: config.json, tokenizer and safetensors weights.")
]
Hub: TypeAlias = Annotated[
    str, typer.Option(metavar="REPO@COMMIT", help="Model on the Hub, by commit; a branch name is refused.")
]
Kubeconfig: TypeAlias = Annotated[
    Path, typer.Option(envvar="KUBECONFIG", help="Kubeconfig file; its current context is never changed.")
]
Context: TypeAlias = Annotated[str, typer.Option(help="Context of the kubeconfig; its current one when empty.")]
Registry: TypeAlias = Annotated[
    str, typer.Option(metavar="HOST[:PORT]", help="Registry that this command and the cluster's nodes both reach.")
]
Repository: TypeAlias = Annotated[str, typer.Option(help="Repository of the modelcar in the registry.")]
GatewayClass: TypeAlias = Annotated[str, typer.Option(help="GatewayClass of the cluster's Gateway.")]
GatewayUrl: TypeAlias = Annotated[
    str, typer.Option(metavar="URL", help="Base URL of the gateway; read from the Gateway's status when empty.")
]
BaseImage: TypeAlias = Annotated[
    str,
    typer.Option(
        "--base-image",
        metavar="IMAGE@DIGEST",
        help="Base of the modelcar, or oci:DIRECTORY; busybox of manifests/lock.yaml when empty.",
    ),
]
EngineImage: TypeAlias = Annotated[
    str,
    typer.Option(
        "--engine-image", metavar="IMAGE@DIGEST", help="Engine of both paths; vLLM of manifests/lock.yaml when empty."
    ),
]
RegistryMirror: TypeAlias = Annotated[
    str,
    typer.Option(
        "--registry-mirror",
        metavar="[http://]HOST[:PORT][/PREFIX]",
        help="Registry that has every image and chart of manifests/lock.yaml; upstream when empty.",
    ),
]
ProfileName: TypeAlias = Annotated[
    str, typer.Option("--profile", help="What one engine may use: cpu, cpu-small, gpu or gke.")
]
Components: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--component", metavar="NAME", help="Option of the profile's overlay, such as gke-spot; repeatable."),
]
Namespace: TypeAlias = Annotated[str, typer.Option(help="Namespace of both serving paths.")]
Name: TypeAlias = Annotated[str, typer.Option(help="Base name of the deployed objects; -raw and -kserve are appended.")]
ModelName: TypeAlias = Annotated[str, typer.Option(help="The `model` of the OpenAI API.")]
ExpectedAnswer: TypeAlias = Annotated[
    str,
    typer.Option(help='Word that the answer to "The capital of France is" holds; "" for a model that cannot know it.'),
]
ReportDirectory: TypeAlias = Annotated[Path, typer.Option("--report", metavar="DIR", help="Where the report goes.")]
OptionalReportDirectory: TypeAlias = Annotated[
    Path | None, typer.Option("--report", metavar="DIR", help="Also write a report there.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]

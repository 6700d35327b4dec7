"""One model, two serving paths: raw vLLM against KServe, measured side by side on the same node, promoted by digest.

servepath builds a digest-pinned OCI modelcar from a model directory, starts a Kubernetes cluster with KServe and a
gateway, serves the model raw and through KServe on the same engine, proves both, measures both, and writes a report
that a person reads and a machine gates on.

    dagger call prove --source=./model export --path=report

`prove` is `e2e` under a name without a digit: `dagger call` spells `e2e` as `e-2-e`.
"""

from main.cluster import Cluster
from main.endpoint import Endpoint
from main.evidence import Evidence
from main.mirror import Mirror
from main.modelcar import Modelcar
from main.promotion import PromotionPlan
from main.servepath import Servepath

__all__ = ["Cluster", "Endpoint", "Evidence", "Mirror", "Modelcar", "PromotionPlan", "Servepath"]

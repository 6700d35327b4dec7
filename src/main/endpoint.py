"""A model that answers."""

from typing import Annotated

import dagger
from dagger import Doc

from main.arguments import (
    Blocks,
    ClientRatePerS,
    ExpectedAnswer,
    HoldS,
    MaxSlowdownPercent,
    ModelDirectory,
    OutputTokens,
    PromptTokens,
    RatePerS,
    RequestsPerBlock,
    Steps,
    bench_options,
    canary_options,
)
from main.choices import Path
from main.declare import never_cached, object_type
from main.evidence import Evidence, gather
from main.images import base_image_option
from main.modelcar import push
from main.workbench import MODEL


@object_type
class Endpoint:
    """A served model that has answered one real completion."""

    path: Annotated[Path, Doc("How it is served: `raw`, `kserve` or `llm-d`")] = dagger.field()
    host: Annotated[str, Doc("Host header that routes to it at the gateway")] = dagger.field()
    model: Annotated[str, Doc("The `model` of the OpenAI API")] = dagger.field()
    modelcar_digest: Annotated[str, Doc("`sha256:…` of the modelcar that it serves")] = dagger.field()
    ready_s: Annotated[float, Doc("Seconds from apply to the first completion")] = dagger.field()
    tools: dagger.Container
    registry: str
    mirror: str
    arguments: list[str]

    @never_cached
    async def smoke(self, expected_answer: ExpectedAnswer = "Paris") -> Evidence:
        """Run every smoke check of this path.

        Example: `dagger call cluster deploy --source=./model --path=raw smoke report export --path=report`

        Raises:
            ValueError: the endpoint is llm-d's.
        """
        self._refuse_llm_d()
        options = [f"--path={self.path.value}", f"--expected-answer={expected_answer}"]
        return await gather(self.tools, ["smoke", *self.arguments, *options])

    @never_cached
    async def bench(
        self,
        blocks: Blocks = 8,
        requests_per_block: RequestsPerBlock = 2,
        rate_per_s: RatePerS = 0.5,
        prompt_tokens: PromptTokens = 32,
        output_tokens: OutputTokens = 16,
    ) -> Evidence:
        """Measure this endpoint against itself: it must come out as no difference, and shows what could be told apart.

        Example: `dagger call cluster deploy --source=./model --path=raw bench report export --path=report`

        Raises:
            ValueError: the endpoint is llm-d's.
        """
        self._refuse_llm_d()
        options = bench_options(blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens)
        return await gather(self.tools, ["bench", *self.arguments, f"--path={self.path.value}", *options])

    @never_cached
    async def canary(  # noqa: PLR0913, PLR0917 - the plan of a canary, one argument each
        self,
        source: ModelDirectory,
        steps: Steps = None,
        hold_s: HoldS = 60.0,
        rate_per_s: ClientRatePerS = 2.0,
        max_slowdown_percent: MaxSlowdownPercent = 20.0,
        output_tokens: OutputTokens = 16,
    ) -> Evidence:
        """Push another model, and lead it to all traffic of this hostname, step by step, or back by itself.

        Example: `dagger call cluster deploy --source=./model canary --source=./next report export --path=report`

        Raises:
            ValueError: the endpoint is not served by KServe.
        """
        if self.path is not Path.KSERVE:
            raise ValueError(f"{self.path.value} has no canary; next: deploy --path=kserve")
        container = self.tools.with_mounted_directory(MODEL, source)
        model = [f"--source={MODEL}", *base_image_option(self.mirror)]
        reference = await push(container, model, f"{self.registry}/servepath/model")
        plan = canary_options(steps, hold_s, rate_per_s, max_slowdown_percent, output_tokens)
        return await gather(self.tools, ["canary", *self.arguments, f"--to={reference}", *plan])

    def _refuse_llm_d(self) -> None:
        if self.path is Path.LLM_D:
            raise ValueError("llm-d is deployed and answers, but is not checked or measured here; next: docs/llm-d.md")

"""A model that answers."""

from typing import Annotated

import dagger
from dagger import Doc

from main.arguments import Blocks, ExpectedAnswer, OutputTokens, PromptTokens, RatePerS, RequestsPerBlock, bench_options
from main.choices import Path
from main.declare import never_cached, object_type
from main.evidence import Evidence, gather


@object_type
class Endpoint:
    """A served model that has answered one real completion."""

    path: Annotated[Path, Doc("How it is served: `raw` or `kserve`")] = dagger.field()
    host: Annotated[str, Doc("Host header that routes to it at the gateway")] = dagger.field()
    model: Annotated[str, Doc("The `model` of the OpenAI API")] = dagger.field()
    modelcar_digest: Annotated[str, Doc("`sha256:…` of the modelcar that it serves")] = dagger.field()
    ready_s: Annotated[float, Doc("Seconds from apply to the first completion")] = dagger.field()
    tools: dagger.Container
    arguments: list[str]

    @never_cached
    async def smoke(self, expected_answer: ExpectedAnswer = "Paris") -> Evidence:
        """Run every smoke check of this path.

        Example: `dagger call cluster deploy --source=./model --path=raw smoke report export --path=report`
        """
        return await gather(self.tools, ["smoke", *self.arguments, f"--expected-answer={expected_answer}"])

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
        """
        options = bench_options(blocks, requests_per_block, rate_per_s, prompt_tokens, output_tokens)
        return await gather(self.tools, ["bench", *self.arguments, *options])

"""How another Dagger module uses servepath."""

from typing import Annotated

import dagger
from dagger import Doc, dag


@dagger.object_type
class Example:
    """A pipeline of your own around servepath."""

    registry_mirror: Annotated[str, Doc("Registry that every image comes from; upstream when empty")] = ""

    @dagger.function(cache="never")
    def servepath_prove(self, source: Annotated[dagger.Directory, Doc("Model directory")]) -> dagger.Directory:
        """Serve a model both ways, and give the report; fails unless everything holds."""
        return dag.servepath(registry_mirror=self.registry_mirror).prove(source)

    @dagger.function
    async def servepath_modelcar__digest(self, source: Annotated[dagger.Directory, Doc("Model directory")]) -> str:
        """Give the digest under which both paths would serve a model."""
        return await dag.servepath(registry_mirror=self.registry_mirror).modelcar(source).digest()

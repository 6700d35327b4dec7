"""Model source -> layers -> image -> registry.

```text
source, hub        a directory or a Hub commit -> a validated ModelSource
layers, content    files -> deterministic tar layers, streamed
image, write       base + layers + what the image says of itself -> an image in a target
layout, repository the two places that images are read from and written to
registry, auth     the distribution protocol, retries, credentials
build              build_and_push, build_layout: all of it for a modelcar
copy, verify       images by digest from place to place; a modelcar checked where it lies
```
"""

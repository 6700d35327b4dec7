"""Model source -> layers -> image -> registry.

```text
source, hub        a directory or a Hub commit -> a validated ModelSource
plan               what a modelcar will be: its layers, its bases, what it says of itself
layers, content    files -> deterministic tar layers, streamed
reshard, compress  other forms of the layers: weights cut anew at tensor boundaries, zstd
image, write       base + layers + what the image says of itself -> an image in a target
layout, repository the two places that images are read from and written to
registry, auth     the distribution protocol, retries, credentials
referrers          what refers to an image: listed, attached
attachments        sbom, provenance, modelpack: what a push attaches
build              build_and_push, build_layout: all of it for a modelcar
copy, verify       images by digest from place to place; a modelcar checked where it lies
```
"""

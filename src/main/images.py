"""The images that the module itself starts: pinned in `manifests/lock.yaml`, and nowhere else."""

import functools

from servepath.platform import lock
from servepath.manifests import manifests_directory


@functools.cache
def image(name: str) -> str:
    """Give the reference, with its digest, of an image of the lock file.

    Args:
        name: a key under `images`, such as `k3s`.

    Raises:
        InputError: the lock file has no such image.
    """
    return lock.read(manifests_directory() / "lock.yaml").image(name).reference

"""The images that the module itself starts: pinned in `manifests/lock.yaml`, and nowhere else."""

import functools

from servepath.manifests import manifests_directory
from servepath.platform import lock
from servepath.platform.mirror import parse_mirror


@functools.cache
def image(name: str, mirror: str = "") -> str:
    """Give the reference, with its digest, of an image of the lock file.

    Args:
        name: a key under `images`, such as `k3s`.
        mirror: a registry that has it under the same repository; upstream when empty.

    Raises:
        InputError: the lock file has no such image.
        UsageError: the mirror is no registry.
    """
    reference = lock.read(manifests_directory() / "lock.yaml").image(name).reference
    return parse_mirror(mirror).image(reference) if mirror else reference


def base_image_option(mirror: str) -> list[str]:
    """Give the option of the command line that takes a modelcar's base from a mirror; none when there is no mirror.

    The base has the same digest there, so the modelcar has too.
    """
    return [f"--base-image={image('modelcar-base', mirror)}"] if mirror else []

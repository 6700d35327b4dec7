"""Check and install Gateway API, cert-manager, KServe and the gateway."""

from servepath.platform.checking import check
from servepath.platform.installing import Action, Step, install, plan
from servepath.platform.lock import Lock
from servepath.platform.lock import read as read_lock

__all__ = ["Action", "Lock", "Step", "check", "install", "plan", "read_lock"]

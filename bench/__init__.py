"""The bench: data, backbones, sites, caches, stages, runner and command line of eludebench.

The five packages of this project are plain top-level packages that stand side by side. Other distributions carry
packages named `judges` or `results` too, so importing the bench checks that it got its own siblings.
"""

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"


class UsageError(ValueError):
    """Something that was asked for cannot be done as asked; each line names argument, value and next step."""


class UnknownNameError(UsageError, LookupError):
    """A name that does not exist; the message suggests the nearest."""


def check_siblings() -> None:
    """Refuse to go on beside another distribution's package of the same name.

    Raises:
        ImportError: A sibling package resolves to another folder.
    """
    here = Path(__file__).resolve().parent.parent
    for name in ("judges", "methods", "metrics", "results"):
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != here:
            raise ImportError(
                f"package {name!r}: found at {origin}; expected it in {here}; another distribution has a package of "
                f"that name: uninstall it, or use an environment of its own for eludebench"
            )


check_siblings()

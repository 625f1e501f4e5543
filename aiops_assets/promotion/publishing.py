"""Functions that publish a version where it is used (a table, a cache) before the pointer moves to it.

What belongs here: the name under which a version's publisher is recorded, and finding the function again. What does
not: publishing itself (the domain rooms). A recorded name is data: it is followed only to a function of this package
that is declared to take settings and a version's files, and to nothing else.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Callable
from typing import Any

from aiops_assets.promotion.gates import VersionFiles
from aiops_assets.promotion.problems import RegistryProblem
from aiops_assets.settings import Settings

Publisher = Callable[[Settings, VersionFiles], None]
_PACKAGE = "aiops_assets."
#: recorded of a function that cannot be found by its name, such as one that is made inside another
UNNAMED = "-"


def name_of(publish: Publisher | None) -> str | None:
    """What is recorded of a publisher; ``None`` when there is none."""
    if publish is None:
        return None
    name = f"{getattr(publish, '__module__', '')}:{getattr(publish, '__qualname__', '')}"
    try:
        return name if find(name) is publish else UNNAMED
    except RegistryProblem:
        return UNNAMED


def find(name: str) -> Publisher:
    """The publisher of a recorded name.

    Raises:
        RegistryProblem: there is none of that name that takes settings and files.
    """
    module, _, function = name.partition(":")
    who = "a function that has no name of its own" if name == UNNAMED else f"{name!r}, which this product does not have"
    problem = RegistryProblem(
        f"the version is published by {who}: materialise its "
        "champion asset in Dagster instead (the launchpad takes override_reason), or leave publishing out with "
        "--without-publishing"
    )
    if not module.startswith(_PACKAGE) or not function.isidentifier():
        raise problem
    try:
        found: Any = getattr(importlib.import_module(module), function, None)
        hints = typing.get_type_hints(found) if callable(found) else {}
    except (ImportError, NameError, TypeError) as error:
        raise problem from error
    if list(hints.values())[:2] != [Settings, VersionFiles] or hints.get("return") is not type(None):
        raise problem
    return typing.cast("Publisher", found)

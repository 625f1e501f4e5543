"""What can be wrong with a promotion, as errors whose text names the thing, the version or the file, and the next step.

What belongs here: the errors of this room. What does not: raising them, and how they are shown (command line, Dagster).
"""

from __future__ import annotations


class RegistryProblem(Exception):
    """The registry cannot do what was asked; the text says why and what to do."""


class VersionUnknown(RegistryProblem):
    """There is no such thing, or no such version of it."""


class VersionDamaged(RegistryProblem):
    """A version's files are not those that its manifest names."""


class FileRefused(RegistryProblem):
    """A file that no version may have: a pickle, a link, a name that leads elsewhere."""


class GatesNotPassed(RegistryProblem):
    """A blocking gate failed, or was never asked."""


class VersionRevoked(RegistryProblem):
    """The version was revoked: it never serves again."""


class RolledBack(RegistryProblem):
    """Somebody rolled back from this version, so that only a person may promote it again."""


class MovedMeanwhile(RegistryProblem):
    """Another promotion, rollback or revocation of the same thing came first."""


class NothingBefore(RegistryProblem):
    """There is no version to roll back to."""


class ArchiveProblem(RegistryProblem):
    """An archive is damaged, incomplete, was tampered with, or does not fit the home."""

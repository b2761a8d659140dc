"""What is sent along with a job: the working directory without what is large, private or made anew. Known before anything is uploaded."""

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIMIT = 100 * 2**20
"""Bytes that Ray takes for a working directory."""
EXCLUDED = (
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "*.egg-info",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "store",
    "*.pem",
    ".env",
)
"""Names of files and folders that stay here, at any depth."""


@dataclass(frozen=True)
class Package:
    """The files that go along: paths relative to the folder, and bytes."""

    folder: Path
    files: list[tuple[str, int]]

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)

    def checked(self, limit: int = LIMIT) -> "Package":
        """Itself. Raises ValueError, naming the largest files, when it is above the limit."""
        if self.bytes > limit:
            largest = sorted(self.files, key=lambda file: -file[1])[:5]
            named = ", ".join(f"{path} ({size / 2**20:.0f} MiB)" for path, size in largest)
            raise ValueError(
                f"{self.folder}: {self.bytes / 2**20:.0f} MiB to send, {limit / 2**20:.0f} MiB are allowed. The largest: {named}."
                " Put data where the cluster reaches it, and leave folders out with --exclude NAME"
            )
        return self


def package(folder: Path, excluded: tuple[str, ...] = EXCLUDED) -> Package:
    """The files below `folder` that are not excluded by name."""
    return Package(folder, sorted(_files(folder, excluded)))


def _files(folder: Path, excluded: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _matches(name, excluded)]
        for name in files:
            path = Path(root) / name
            if not _matches(name, excluded) and not path.is_symlink():
                yield str(path.relative_to(folder)), path.stat().st_size


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

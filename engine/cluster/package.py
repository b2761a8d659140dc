"""The working directory that is uploaded with a job: without large, private or generated files and without symbolic links. Computed before anything
is uploaded."""

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

LIMIT = 100 * 2**20
"""Largest working directory that Ray accepts, in bytes."""
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
"""Names of files and folders that are not uploaded, at any depth."""


@dataclass(frozen=True)
class Package:
    """Files to upload: paths relative to the folder, and their bytes. `links` are not uploaded: their targets may be data, or outside the folder."""

    folder: Path
    files: list[tuple[str, int]]
    links: list[str]

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)

    @property
    def link_patterns(self) -> list[str]:
        """The links as patterns for Ray's `excludes`, since Ray follows links: each matches one path of the folder and everything below it."""
        return [_anchored(link) for link in self.links]

    def check_size(self, limit: int = LIMIT) -> None:
        """Raise ValueError, naming the largest files, when the package is above `limit` bytes."""
        if self.bytes > limit:
            largest = sorted(self.files, key=lambda file: -file[1])[:5]
            named = ", ".join(f"{path} ({size / 2**20:.0f} MiB)" for path, size in largest)
            raise ValueError(
                f"{self.folder}: {self.bytes / 2**20:.0f} MiB to upload, the limit is {limit / 2**20:.0f} MiB. Largest files: {named}."
                " Put data where the cluster reaches it, and exclude folders with --exclude NAME"
            )


def list_package(folder: Path, excluded: tuple[str, ...] = EXCLUDED) -> Package:
    """The files and links below `folder` that are not excluded by name."""
    files, links = list[Path](), list[Path]()
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _matches(name, excluded)]
        found = [Path(root) / name for name in names if not _matches(name, excluded)]
        files += [path for path in found if not path.is_symlink()]
        links += [path for path in (*(Path(root) / name for name in folders), *found) if path.is_symlink()]
    sizes = sorted((str(path.relative_to(folder)), path.stat().st_size) for path in files)
    return Package(folder, sizes, sorted(path.relative_to(folder).as_posix() for path in links))


def _anchored(path: str) -> str:
    """A gitignore pattern that matches this path only. Blanks are put in brackets: Ray strips them at the end of a pattern, even escaped."""
    return "/" + "".join(f"[{c}]" if c.isspace() else f"\\{c}" if c in "\\*?[" else c for c in path)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

"""What is sent along with a job: the working directory without what is large, private or made anew, and without symbolic links. Known before anything
is uploaded."""

import fnmatch
import os
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
    """The files that go along: paths relative to the folder, and bytes. `links` stay here: what they point to may be data, or anywhere."""

    folder: Path
    files: list[tuple[str, int]]
    links: list[str]

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)

    @property
    def kept(self) -> list[str]:
        """The links as patterns for Ray's `excludes`, since Ray follows links: each matches one path of the folder, and what is below it."""
        return [_anchored(link) for link in self.links]

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
    """A gitignore pattern for this path alone. Blanks stand in brackets: Ray cuts them off the end of a pattern, escaped or not."""
    return "/" + "".join(f"[{c}]" if c.isspace() else f"\\{c}" if c in "\\*?[" else c for c in path)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

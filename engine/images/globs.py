"""Patterns of paths as shells write them: `*`, `**`, `?`, `[0-9]`, `{cats,dogs}` and `{00..99}`."""

import itertools
import re

MAGIC = re.compile(r"[*?\[{]")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MAX_NAMES = 1_000_000
"""Most paths that braces may spell."""


def split_root(path: str) -> tuple[str, str]:
    """The folder above the first part with a pattern, and the rest."""
    parts = path.split("/")
    first = next(index for index, part in enumerate(parts) if MAGIC.search(part))
    return "/".join(parts[:first]) or "/", "/".join(parts[first:])


def expand_braces(pattern: str) -> list[str]:
    """The patterns that braces spell, in order; `{08..10}` keeps its zeros. Raises ValueError for more than MAX_NAMES."""
    pieces: list[list[str]] = []
    count, end = 1, 0
    for match in BRACES.finditer(pattern):
        options = _options(match[1])
        count *= len(options)
        if count > MAX_NAMES:
            raise ValueError(f"{pattern}: the braces spell more than {MAX_NAMES:,} names. Use a `*`.")
        pieces += [[pattern[end : match.start()]], list(map(str, options))]
        end = match.end()
    return ["".join(one) for one in itertools.product(*pieces, [pattern[end:]])]


def _options(text: str) -> list[str]:
    if (match := RANGE.fullmatch(text)) is None:
        return text.split(",") if "," in text else [f"{{{text}}}"]
    first, last = int(match[1]), int(match[2])
    if abs(last - first) >= MAX_NAMES:
        raise ValueError(f"{{{text}}}: more than {MAX_NAMES:,} names. Use a `*`.")
    step = 1 if last >= first else -1
    return [f"{number:0{len(match[1])}d}" for number in range(first, last + step, step)]


def to_regex(pattern: str) -> str:
    """A regular expression for the paths of files that match, or that lie below a folder that does."""
    out, at = "", 0
    while at < len(pattern):
        close = pattern.find("]", at + 2) if pattern[at] == "[" else -1
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern[at] in "*?":
            out, at = out + {"*": "[^/]*", "?": "[^/]"}[pattern[at]], at + 1
        elif close > 0:
            inside = pattern[at + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            out, at = out + f"[{'^' + inside[1:] if inside[0] == '!' else inside}]", close + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return out + "(?:/.*)?"


def matching(paths: list[str], pattern: str) -> list[bool]:
    """Which paths match a pattern. Raises ValueError naming a brace's path that none matches: what is spelled out must be there."""
    expanded = expand_braces(pattern)
    names = set(paths)
    found, missing = set[str](), list[str]()
    for one in expanded:
        if one in names:
            found.add(one)
            continue
        expression = re.compile(to_regex(one))
        hits = [path for path in paths if expression.fullmatch(path)]
        found.update(hits)
        if not hits:
            missing.append(one)
    if missing:
        raise ValueError(
            f"{pattern}: {len(missing)} of {len(expanded)} patterns match none of {len(paths)} files, first {missing[0]}"
        )
    return [path in found for path in paths]

"""Count what the house promises to keep small: long parameter lists, Ray outside the edge, old words.

python -m tests.benchmarks.house [ROOT …]    one column per source tree, the one it stands in by default
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parents[2]
MAX_PARAMETERS = 6

OLD_WORDS = (
    "told",
    "say(",
    "mend",
    "mended",
    "beside",
    "further",
    "foretell",
    "foretold",
    "lore",
    "stranger",
    "strangers",
    "calm",
    "an image",
    "held",
    "labeller",
    "left out",
    "kept out",
    "set aside",
    "unusable",
)
"""Words of the old dialect. "Held-out" for data that is never trained on is no old word."""


def sources(root: Path, *rooms: str) -> dict[str, str]:
    """Text of each Python file under `rooms`, by its path relative to `root`."""
    paths = sorted(path for name in rooms for path in (root / name).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def long_functions(texts: dict[str, str]) -> dict[str, int]:
    """Parameters (without self and cls) of each function that has more than six, by "file:qualified name"."""
    found: dict[str, int] = {}
    for path, text in texts.items():
        for name, function in _functions(ast.parse(text), ""):
            args = function.args
            given = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
            count = sum(arg.arg not in {"self", "cls"} for arg in given)
            if count > MAX_PARAMETERS:
                found[f"{path}:{name}"] = count
    return found


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        inner = (
            f"{prefix}{child.name}."
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else prefix
        )
        yield from _functions(child, inner)


def imports_ray(text: str) -> bool:
    return re.search(r"^\s*(?:import|from) ray\b", text, re.MULTILINE) is not None


def checks_of_source_class(texts: dict[str, str]) -> list[str]:
    """Each `isinstance(…)` that names RawSet or PoolSource, as "file:line"."""
    return [
        f"{path}:{node.lineno}"
        for path, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and re.search(r"\b(RawSet|PoolSource)\b", ast.unparse(node))
    ]


def mentions_of_accuracy(texts: dict[str, str]) -> int:
    """Names, attributes, arguments, keywords and whole strings `accuracy`, outside tasks/ and metrics/."""
    return sum(
        "accuracy" in {getattr(node, field, None) for field in ("id", "attr", "arg", "name")}
        or (isinstance(node, ast.Constant) and node.value == "accuracy")
        for path, text in texts.items()
        if not path.startswith(("engine/tasks/", "engine/metrics/"))
        for node in ast.walk(ast.parse(text))
    )


def old_words(texts: dict[str, str]) -> dict[str, int]:
    """Occurrences of each old word in identifiers, comments, docstrings and strings; `_` separates words."""
    whole = re.sub(r"held[-_ ]out", "", "\n".join(texts.values()).lower())
    ends = {word: "" if word.endswith("(") else "(?![a-z])" for word in OLD_WORDS}
    return {word: len(re.findall(rf"(?<![a-z]){re.escape(word)}{ends[word]}", whole)) for word in OLD_WORDS}


def numbers(root: Path) -> dict[str, str]:
    engine, both = sources(root, "engine"), sources(root, "engine", "jobs")
    lines = [text.count("\n") for text in engine.values()]
    return {
        "lines of engine/": f"{sum(lines):,}",
        "files of engine/": f"{len(lines)}",
        "median file, lines": f"{statistics.median(lines):.0f}",
        "largest file, lines": f"{max(lines)}",
        "functions of engine/ and jobs/ with more than six parameters": f"{len(long_functions(both))}",
        "modules of engine/ that import ray": f"{sum(map(imports_ray, engine.values()))}",
        "`isinstance(… RawSet or PoolSource)` in engine/ and jobs/": f"{len(checks_of_source_class(both))}",
        "`accuracy` in engine/ outside tasks/ and metrics/": f"{mentions_of_accuracy(engine)}",
        "old words in engine/ and jobs/": f"{sum(old_words(both).values())}",
    }


def main() -> None:
    columns = [numbers(Path(root)) for root in sys.argv[1:] or [str(HERE)]]
    for name in columns[0]:
        print("| " + " | ".join([name, *(column[name] for column in columns)]) + " |")


if __name__ == "__main__":
    main()

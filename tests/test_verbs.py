"""The name of a verb belongs to one kind of step: `fit-…` in a store says who made it, and one REVISION speaks for it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
Name = tuple[str, str]
"""Where a constant is assigned: module and name."""


def constants(tree: ast.Module, module: str) -> dict[str, Name]:
    """What each name at the top of a module stands for: itself, or what it was imported from."""
    names: dict[str, Name] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
    return names | {name: (module, name) for name, _ in assigned(tree)}


def assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Names and values that are assigned at the top of a module, one by one or as a tuple."""
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=True)
                    yield from ((one.id, value) for one, value in pairs if isinstance(one, ast.Name))


def begun(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Verb and revision of every step that a module begins; a literal revision names a place that is never begun."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            pairs = list(zip(node.args, node.args[1:], strict=False))
        elif isinstance(node, ast.Dict):
            fields = {key.value: value for key, value in zip(node.keys, node.values, strict=True) if _text(key)}  # type: ignore[union-attr]
            pairs = [(fields["verb"], fields["revision"])] if {"verb", "revision"} <= fields.keys() else []
        else:
            continue
        yield from (pair for pair in pairs if isinstance(pair[1], ast.Name) and pair[1].id.endswith("REVISION"))


def _text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def revisions(root: Path) -> dict[str, set[Name]]:
    """Every verb and the REVISIONs with which its steps are begun, over all modules below `root`."""
    trees = {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text())
        for room in ("engine", "jobs")
        for path in (root / room).rglob("*.py")
    }
    values = {(module, name): value for module, tree in trees.items() for name, value in assigned(tree)}
    found: dict[str, set[Name]] = {}
    for module, tree in trees.items():
        names = constants(tree, module)
        for verb, revision in begun(tree):
            literal = values[names[verb.id]] if isinstance(verb, ast.Name) else verb
            assert isinstance(literal, ast.Constant), f"{module}: the verb of a step is a literal or a constant"
            assert isinstance(revision, ast.Name)
            found.setdefault(str(literal.value), set()).add(names[revision.id])
    return found


def test_a_verb_belongs_to_one_kind_of_step() -> None:
    found = revisions(ROOT)
    assert {"fit", "predict", "select", "gather", "list", "histogram", "evaluate", "evaluate_soft"} <= found.keys()
    twice = {verb: sorted(owners) for verb, owners in found.items() if len(owners) > 1}
    assert not twice, "two kinds of step cannot be told apart by their names"
    assert all(verb.isidentifier() for verb in found), "a dash would end the verb in the name of its step"


def test_two_owners_of_one_verb_are_found(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    for name in ("one", "two"):
        text = 'REVISION = 1\n\ndef f(run):\n    run.step("label", "import", REVISION, {}, {}, None)\n'
        (tmp_path / "engine" / f"{name}.py").write_text(text)
    assert revisions(tmp_path) == {"import": {("engine.one", "REVISION"), ("engine.two", "REVISION")}}

"""A verb names one kind of step: its name and its revision stand in one file of the engine."""

import ast
from collections import defaultdict
from pathlib import Path

ENGINE = Path(__file__).parents[1] / "engine"


def verbs_of(path: Path) -> set[str]:
    """The verbs of the steps that a file makes: the second argument of `run.find_or_run_step(title, verb, revision, …)`, literal or a constant."""
    tree = ast.parse(path.read_text())
    constants: dict[str, object] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
                for bound, value in zip(names, values, strict=False):
                    if isinstance(bound, ast.Name) and isinstance(value, ast.Constant):
                        constants[bound.id] = value.value
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "find_or_run_step":
            if len(node.args) != 6:  # title, verb, revision, settings, inputs, work
                continue
            verb = node.args[1]
            name: object = verb.value if isinstance(verb, ast.Constant) else constants.get(getattr(verb, "id", ""))
            if isinstance(name, str):
                found.add(name)
    return found


def test_a_verb_belongs_to_one_kind_of_step() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for path in ENGINE.rglob("*.py"):
        for verb in verbs_of(path):
            homes[verb].add(str(path.relative_to(ENGINE)))
    assert {"fit", "predict", "select", "gather", "evaluate", "evaluate_soft", "calibrate"} <= set(homes)
    shared = {verb: files for verb, files in homes.items() if len(files) > 1}
    assert not shared, "two kinds of step cannot be told apart by their names"
    assert not {verb for verb in homes if "-" in verb}, "a step's folder is its verb, a hyphen and its fingerprint"

"""The first section of the page: what came of the run in one sentence, the model to use, the decisions of the guard."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.ground.progress import format_duration
from engine.ground.steps import Store
from engine.metrics.score import Score
from engine.recipes.context import CONTROL
from engine.recipes.policy import ACTIONS, points
from engine.report.page.evidence import compared
from engine.report.page.source import GenerationRecord, RunRecord
from engine.report.status import StepStatus, step_status

LEAST_P = 0.0001
SETS = {"validation": "validation images", "test": "test images"}


@dataclass(frozen=True)
class DecisionRow:
    """A decision of the guard after a generation."""

    generation: str
    action: str
    detail: str
    is_warning: bool
    """Advice that was not obeyed."""


@dataclass(frozen=True)
class Verdict:
    """What is said first. `score` is that of the model to use on `on`."""

    sentence: str
    note: str
    is_finished: bool
    name: str | None
    path: str | None
    is_timms: bool
    """Whether timm can load it: a network with a decoder is this engine's own."""
    score: Score | None
    on: str
    decisions: tuple[DecisionRow, ...]
    unfinished: tuple[StepStatus, ...]
    """Steps that are not finished, where the run is not."""


def verdict(record: RunRecord) -> Verdict:
    """The verdict on a run, finished or not."""
    chosen, on = record.chosen, record.main_set
    score = chosen.scores.get(on) if chosen is not None else None
    sentence, note = _unfinished(record), ""
    if chosen is not None:
        sentence = _use(chosen, score, on)
        gain, note = _gain(record, chosen, on)
        sentence = f"{sentence} {gain}".strip()
        if effect := record.metrics.get("pool_effect"):
            sentence, note = f"{sentence} {effect['sentence']}.", ""
    decisions = tuple(
        DecisionRow(
            one.name,
            ACTIONS.get(one.guard["action"], one.guard["action"]),
            one.guard["detail"],
            not one.guard["obeyed"] and one.guard["action"] != "continue",
        )
        for one in record.generations
        if one.guard is not None
    )
    return Verdict(
        sentence,
        note,
        chosen is not None,
        chosen.name if chosen is not None else None,
        _address(record.store, chosen),
        record.settings.get("task") != "segment",
        score,
        SETS[on],
        decisions,
        tuple(_open_steps(record)) if chosen is None else (),
    )


def p_value(value: float) -> str:
    """`p = 0.012`; very small ones as a bound."""
    return f"p = {value:.2g}" if value >= LEAST_P else f"p < {LEAST_P:g}"


def the(name: str) -> str:
    """A model's name in a sentence: `the teacher`, `generation 2`."""
    return f"the {name}" if name == "teacher" else name


def _use(chosen: GenerationRecord, score: Score | None, on: str) -> str:
    if score is None:
        return f"Use {the(chosen.name)}. It was not measured: the run has no validation and no test images."
    counted = f"{score.images:,} {SETS[on]}"
    span = f"{100 * score.low:.1f} to {100 * score.high:.1f}"
    return f"Use {the(chosen.name)}: {score.title} {100 * score.value:.1f} % (95 % CI {span}; {counted})."


def _gain(record: RunRecord, chosen: GenerationRecord, on: str) -> tuple[str, str]:
    """How the model to use compares with the first one, and what that does not show."""
    made = [one for one in record.generations if one.name != CONTROL]
    first = made[0]
    if len(made) < 2 or chosen.name == CONTROL:
        return "", ""
    if chosen is first:
        return f"None of the {len(made) - 1} students was to be preferred to it.", ""
    test = compared(record, first, chosen, on)
    if test is None:
        return by_guard(chosen), ""
    note = (
        f"A student can be better than {the(first.name)} because of the pool, or because it was trained for longer."
        " Set recipe.control=labels_only to tell: the same training on the labels alone."
    )
    if not test.significant:
        return (
            f"No difference to {the(first.name)} was shown on the same images: {points(test.difference)}.",
            note,
        )
    word = "better" if test.difference.value > 0 else "worse"
    shown = points(test.difference if word == "better" else -test.difference)
    return f"It is {word} than {the(first.name)} by {shown}, {p_value(test.p_value)}, on the same images.", note


def by_guard(chosen: GenerationRecord) -> str:
    """What the guard found when the model was compared with its own teacher: of tasks whose rows are not compared here."""
    if chosen.guard is None or chosen.guard.get("difference") is None:
        return "It was not compared with another model image by image."
    return f"Against its own teacher, on validation images: {chosen.guard['detail']}."


def _unfinished(record: RunRecord) -> str:
    done = sum(one.output is not None for one in record.steps)
    spent = format_duration(sum(one.seconds for one in record.steps))
    return (
        f"This run is not finished: {done} of the {len(record.steps)} steps that it began are done ({spent} of work), and it has no result yet."
        " The same command resumes it."
    )


def _open_steps(record: RunRecord) -> Iterator[StepStatus]:
    return (step_status(record.store, one.pointer) for one in record.steps if one.output is None)


def _address(store: Store, chosen: GenerationRecord | None) -> str | None:
    """The model folder as a user writes it: with the store's scheme where it has one."""
    if chosen is None or chosen.model is None:
        return None
    inside = chosen.model.removeprefix(f"{store.root}/")
    base, mark, _ = store.uri.partition("?")
    return f"{base.rstrip('/')}/{inside}" if mark or "://" in base else chosen.model

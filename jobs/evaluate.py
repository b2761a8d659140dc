"""Evaluate a model on a labelled collection: score with 95 % interval, scores per class, calibration error.

python -m jobs.evaluate jobs/configs/evaluate.yaml model=fit-0123456789abcdef images.uri=/photos/test
python -m jobs.evaluate jobs/configs/evaluate.yaml model=… images.uri=/photos soft.table=teacher.parquet   (KL to a table of soft labels)
python -m jobs.evaluate jobs/configs/evaluate.yaml model=… images.uri=/photos/test 'corruptions=[all]'   (robustness, 75 passes)
"""

from collections.abc import Mapping, Sequence

from engine.dedup.hashing import hash_excluded
from engine.evaluate.evaluate import evaluate, score_of
from engine.evaluate.robustness import chosen_corruptions, robustness
from engine.evaluate.soft import evaluate_soft
from engine.ground.progress import printable
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection, open_masks
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.metrics.score import Score
from engine.models.checkpoint import class_names
from engine.models.fetch import fetch_model
from engine.models.imported import find_model
from engine.settings.block import load
from engine.settings.jobs import EvaluateJobSettings
from engine.tasks.registry import find_task
from jobs import cli


def main() -> None:
    arguments = cli.parser("evaluate", __doc__, EvaluateJobSettings).parse_args()
    settings = load(EvaluateJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    model = find_model(run, settings.model)
    is_labelled = settings.soft is None and settings.masks is None
    images = open_collection(run, "images", settings.images.uri, settings.images, labelled=is_labelled)
    if settings.masks is not None:
        images = open_masks(run, images, settings.masks, settings.images)
    corruptions = chosen_corruptions(settings.corruptions, settings.severities)
    task = find_task(settings.task)(ClassList(tuple(class_names(fetch_model(model, run.store.fs)))))
    with connect(settings.cluster):
        scope = Scope(
            images, hash_excluded(run, settings.images), max_rejected_percent=settings.images.max_rejected_percent
        )
        if settings.soft is not None:
            summary = evaluate_soft(run, "evaluate", model, scope, settings.predict, settings.soft).summary
            print("\n".join(f"{name}: {value}" for name, value in summary.items()))
            return
        score = score_of(evaluate(run, "evaluate", model, scope, task, settings.predict))
        errors = robustness(run, model, scope, task, settings.predict, corruptions)
    show(score, errors, settings.severities)


def show(score: Score, errors: Mapping[str, float], severities: Sequence[int]) -> None:
    """Print a score, that of each class, and what each family of corruptions costs."""
    precision, f1 = score.details.get("precision", {}), score.details.get("f1", {})
    if precision:
        print(f"  {'class':<24} {'recall':>7} {'precision':>9} {'F1':>7}")
    for name, value in score.per_class.items():
        more = f" {_share(precision.get(name)):>9} {_share(f1.get(name)):>7}" if precision else ""
        print(f"  {printable(name):<24} {value:7.2%}{more}")
    for true, answer, count in score.details.get("confused", []):
        print(f"  {count:,} images of {printable(true)} taken for {printable(answer)}")
    for name, figure in score.details.items():
        if name != "calibration" and isinstance(figure, list) and [type(one) for one in figure] == [float] * 3:
            value, low, high = figure
            print(f"{name.replace('_', ' ')} {value:.2%} (95 % CI {low:.2%}-{high:.2%})")
    calibration = "" if score.calibration is None else f", calibration error {score.calibration:.3f}"
    if "calibration_floor" in score.details:
        _, low, high = score.details["calibration"]
        calibration += f" (95 % CI {low:.3f}-{high:.3f}; a perfectly calibrated model shows {score.details['calibration_floor']:.3f} here)"
    print(f"{score}{calibration}")
    for family, error in errors.items():
        print(f"  {family:<24} {error:7.2%} lost, mean of severities {severities}")
    if errors:
        print(f"mean corruption error {sum(errors.values()) / len(errors):.2%} of {len(errors)} families")


def _share(value: float | None) -> str:
    """A share in percent, or a dash where a class was never answered."""
    return "-" if value is None else f"{value:.2%}"


if __name__ == "__main__":
    cli.run(main)

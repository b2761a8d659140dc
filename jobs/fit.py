"""Train one model on true labels and, optionally, on pseudo-labels or soft labels.

python -m jobs.fit jobs/configs/fit.yaml data.labelled=/photos/labelled
python -m jobs.fit jobs/configs/fit.yaml data.labelled=… data.pool=… pseudo=select-0123456789abcdef 'fit.batch={labelled: 64, pseudo: 192}'
python -m jobs.fit jobs/configs/fit.yaml data.labelled=… data.pool=… soft.table=teacher.npy 'fit.batch={soft: 128}' fit.loss=kl
"""

from engine.dedup.hashing import hash_images
from engine.fit.check import check_fit
from engine.fit.pool_stream import PoolSource
from engine.fit.source import GatheredSource, Source
from engine.fit.trainer import FitSpec, fit
from engine.gather.pipeline import gather, gather_labelled, training_set
from engine.gather.soft import import_soft
from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Output, Store, read_output, verb_of
from engine.images.collection import Collection, open_collection
from engine.images.overlap import ContentHashes, build_exclusion_set, check_overlaps
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.fetch import model_path, teacher_classes
from engine.models.imported import find_model
from engine.predict.pool import check_same_pool, settings_of
from engine.recipes.context import class_list
from engine.settings.block import load
from engine.settings.data import DataSettings
from engine.settings.jobs import FitJobSettings
from jobs import cli


def main() -> None:
    arguments = cli.parser("fit", __doc__, FitJobSettings).parse_args()
    settings = load(FitJobSettings, arguments.config, arguments.overrides)
    check_fit("fit", settings.model, settings.fit, {"labelled", "pseudo", "soft", "pool"})
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    labelled = open_collection(run, "labelled", settings.data.labelled, settings.data, labelled=True)
    classes = class_list(labelled, settings.data.classes)
    init = find_model(run, settings.init, as_init=True) if settings.init else None
    with connect(settings.cluster):
        hashes = hash_sets(run, settings.data, labelled)
        streams = make_streams(run, settings, labelled, classes, hashes)
        model = fit(run, "fit", FitSpec(settings.model, settings.fit, classes, init), streams)
    log_event("done", f"model={model.step}, timm hub folder at {model_path(model)}")


def hash_sets(run: Run, data: DataSettings, labelled: Collection) -> dict[str, ContentHashes]:
    """Content hashes of the labelled set and of the evaluation sets of `data`. Raises ValueError when two of them share an image."""
    uris = {"validation": data.validation, "test": data.test}
    sets = {name: open_collection(run, name, uri, data, labelled=True) for name, uri in uris.items() if uri is not None}
    hashes = {name: hash_images(run, one) for name, one in {"labelled": labelled, **sets}.items()}
    check_overlaps(hashes)
    return hashes


def make_streams(
    run: Run, settings: FitJobSettings, labelled: Collection, classes: ClassList, hashes: dict[str, ContentHashes]
) -> dict[str, Source]:
    """The source of each stream of `fit.batch`. Images of the pool that are also in an evaluation set are left out of every one.

    Raises ValueError when the selection is of another pool or other classes.
    """
    data, batch, percent = settings.data, settings.fit.batch, settings.data.max_rejected_percent
    outputs: dict[str, Output] = {}
    streams: dict[str, Source] = {}
    if "labelled" in batch:
        scope = Scope(labelled, max_rejected_percent=percent)
        outputs["labelled"] = gather_labelled(run, "gather labelled", scope, classes)
    if batch.keys() & {"pseudo", "soft", "pool"}:
        assert data.pool is not None, "checked with the settings"
        pool = open_collection(run, "pool", data.pool, data)
        held = {name: one for name, one in hashes.items() if name != "labelled"}
        scope = Scope(pool, build_exclusion_set(held) if held else None, max_rejected_percent=percent)
        if settings.pseudo is not None:
            chosen = open_selection(run, settings.pseudo, pool, classes)
            outputs["pseudo"] = gather(run, "gather pseudo", chosen, scope, classes, check=bool(held))
        if settings.soft is not None:
            targets = import_soft(run, "import soft", settings.soft, pool, classes)
            outputs["soft"] = gather(run, "gather soft", targets, scope, classes, check=True)
        if "pool" in batch:
            streams["pool"] = PoolSource(pool.manifest, build_exclusion_set(hashes), percent)
    made = {name: GatheredSource(output, training_set(output, run.store, classes)) for name, output in outputs.items()}
    return {**streams, **made}


def open_selection(run: Run, name: str, pool: Collection, classes: ClassList) -> Output:
    """The select step `name`. Raises ValueError unless it is finished, from `pool` as it is now, of `classes`, and has one label
    per image."""
    chosen = read_output(run.store, name)
    if chosen is None or verb_of(chosen) != "select":
        raise ValueError(
            f"pseudo={name}: not a finished select step of {run.store.uri}. `python -m jobs.status {run.store.uri}` lists the steps."
        )
    predictions = check_same_pool(run.store, chosen, pool)
    assert predictions is not None, "a select step names its predictions"
    if settings_of(run.store, predictions).activation == "sigmoid":
        raise ValueError(
            f"pseudo={name}: selected from sigmoid predictions, several labels per image, which this job would learn as one distribution."
            " Train on them with jobs.self_train and task=multilabel."
        )
    classes.check_same(teacher_classes(run.store, predictions), name)
    return chosen


if __name__ == "__main__":
    cli.run(main)

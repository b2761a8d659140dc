"""Train one model on true labels and, optionally, on pseudo-labels or soft labels.

python -m jobs.fit jobs/configs/fit.yaml data.labelled=/photos/labelled
python -m jobs.fit jobs/configs/fit.yaml data.labelled=… data.pool=… pseudo=select-0123456789abcdef 'fit.batch={labelled: 64, pseudo: 192}'
python -m jobs.fit jobs/configs/fit.yaml data.labelled=… data.pool=… soft.table=teacher.npy 'fit.batch={soft: 128}' fit.loss=kl
"""

from engine.dedup.hashing import hash_images
from engine.fit.pool_stream import PoolSource
from engine.fit.source import GatheredSource, Source
from engine.fit.trainer import FitSpec, fit
from engine.gather.pipeline import gather, gather_labelled, training_set
from engine.gather.soft import import_soft
from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store, read_output
from engine.images.collection import Collection, open_collection
from engine.images.overlap import ExclusionSet, build_exclusion_set
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.fetch import model_path
from engine.models.imported import find_model
from engine.recipes.context import class_list
from engine.settings.block import load
from engine.settings.data import DataSettings
from engine.settings.jobs import FitJobSettings
from jobs import cli


def main() -> None:
    arguments = cli.parser("fit", __doc__, FitJobSettings).parse_args()
    settings = load(FitJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    labelled = open_collection(run, "labelled", settings.data.labelled, settings.data, labelled=True)
    classes = class_list(labelled, settings.data.classes)
    init = find_model(run, settings.init) if settings.init else None
    limit = settings.data.max_rejected_percent
    with connect(settings.cluster):
        sources: dict[str, Source] = {}
        if "labelled" in settings.fit.batch:
            output = gather_labelled(run, "gather labelled", Scope(labelled, max_rejected_percent=limit), classes)
            sources["labelled"] = GatheredSource(output, training_set(output, run.store, classes))
        if settings.data.pool is not None:
            pool = open_collection(run, "pool", settings.data.pool, settings.data)
            scope = Scope(pool, known_images(run, settings.data, labelled), max_rejected_percent=limit)
            sources |= pool_sources(run, settings, scope, classes)
        model = fit(run, "fit", FitSpec(settings.model, settings.fit, classes, init), sources)
    log_event("done", f"model={model.step}, timm hub folder at {model_path(model)}")


def pool_sources(run: Run, settings: FitJobSettings, scope: Scope, classes: ClassList) -> dict[str, Source]:
    """What `fit.batch` draws from the pool, without the images that another collection of the job holds."""
    sources: dict[str, Source] = {}
    targets = {}
    if settings.pseudo is not None:
        chosen = read_output(run.store, settings.pseudo)
        if chosen is None:
            raise ValueError(
                f"pseudo={settings.pseudo}: no finished select step of {settings.store}; see python -m jobs.status"
            )
        targets["pseudo"] = chosen
    if settings.soft is not None:
        targets["soft"] = import_soft(run, "import soft", settings.soft, scope.collection, classes)
    for name, table in targets.items():
        output = gather(run, f"gather {name}", table, scope, classes, check=True)
        sources[name] = GatheredSource(output, training_set(output, run.store, classes))
    if "pool" in settings.fit.batch:
        sources["pool"] = PoolSource(scope.manifest, scope.exclusions, scope.max_rejected_percent)
    return sources


def known_images(run: Run, data: DataSettings, labelled: Collection) -> ExclusionSet:
    """The labelled images and those of `data.validation` and `data.test`, none of which a pool may teach."""
    hashes = {"labelled": hash_images(run, labelled)}
    for name, uri in (("validation", data.validation), ("test", data.test)):
        if uri is not None:
            hashes[name] = hash_images(run, open_collection(run, name, uri, data, labelled=True))
    return build_exclusion_set(hashes)


if __name__ == "__main__":
    cli.run(main)

"""Train one model on true labels and, optionally, on pseudo-labels or soft labels.

python -m jobs.fit jobs/configs/fit.yaml data.labelled=/photos/labelled
python -m jobs.fit jobs/configs/fit.yaml data.labelled=… data.pool=… pseudo=select-0123456789abcdef 'fit.batch={labelled: 64, pseudo: 192}'
python -m jobs.fit jobs/configs/fit.yaml data.labelled=… data.pool=… soft.table=teacher.npy 'fit.batch={soft: 128}' fit.loss=kl
"""

from functools import partial

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
from engine.images.overlap import build_exclusion_set
from engine.images.scope import Scope
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
    scope_of = partial(Scope, max_rejected_percent=settings.data.max_rejected_percent)
    with connect(settings.cluster):
        outputs = {"labelled": gather_labelled(run, "gather labelled", scope_of(labelled), classes)}
        if settings.pseudo is not None:
            chosen = read_output(run.store, settings.pseudo)
            if chosen is None or settings.data.pool is None:
                raise ValueError(
                    f"pseudo={settings.pseudo}: needs a finished select step of {settings.store}, and data.pool, from which it selected"
                )
            pool = open_collection(run, "pool", settings.data.pool, settings.data)
            outputs["pseudo"] = gather(run, "gather pseudo", chosen, scope_of(pool), classes)
        if settings.soft is not None:
            if settings.data.pool is None:
                raise ValueError("soft.table has labels of images of data.pool. Set data.pool.")
            pool = open_collection(run, "pool", settings.data.pool, settings.data)
            targets = import_soft(run, "import soft", settings.soft, pool, classes)
            outputs["soft"] = gather(run, "gather soft", targets, scope_of(pool), classes, check=True)
        streams: dict[str, Source] = {}
        if "pool" in settings.fit.batch:
            streams["pool"] = raw_pool(run, settings.data, labelled)
        outputs = {name: output for name, output in outputs.items() if name in settings.fit.batch}
        streams |= {
            name: GatheredSource(output, training_set(output, run.store, classes)) for name, output in outputs.items()
        }
        model = fit(run, "fit", FitSpec(settings.model, settings.fit, classes, init), streams)
    log_event("done", f"model={model.step}, timm hub folder at {model_path(model)}")


def raw_pool(run: Run, data: DataSettings, labelled: Collection) -> PoolSource:
    """The pool as a source of unlabelled images, without the images that are in another collection of `data`."""
    if data.pool is None:
        raise ValueError("fit.batch has a stream pool, which reads data.pool. Set data.pool.")
    hashes = {"labelled": hash_images(run, labelled)}
    for name, uri in (("validation", data.validation), ("test", data.test)):
        if uri is not None:
            hashes[name] = hash_images(run, open_collection(run, name, uri, data, labelled=True))
    return PoolSource(
        open_collection(run, "pool", data.pool, data).manifest, build_exclusion_set(hashes), data.max_rejected_percent
    )


if __name__ == "__main__":
    cli.run(main)

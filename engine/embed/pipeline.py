"""Embed on Ray Data: prediction workers write the features of a frozen network, a part per shard, exactly once.

What is embedded is the whole collection: which of its images are excluded or chosen is decided when the features are read, so that one cache serves
every draw of labels, every head and every round.
"""

from dataclasses import replace
from typing import Any

from engine.embed.shard_embedder import FeatureAnswers, ShardEmbedder
from engine.ground.budget import RejectLimit
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step
from engine.images.scope import Scope
from engine.predict.job import PredictJob
from engine.predict.pipeline import pass_over
from engine.settings.block import identity
from engine.settings.embed import EmbedSettings

VERB, REVISION = "embed", 1
PARQUET: dict[str, Any] = {
    "column_encoding": {"row": "DELTA_BINARY_PACKED", "features": "PLAIN", "content": "PLAIN"},
    "use_dictionary": ["shard"],
}


def embed(run: Run, backbone: Output, scope: Scope, settings: EmbedSettings) -> Output:
    """Features of `backbone` (`embed.backbone`) for every image of the scope's collection that can be read: one part per shard (schema.features).

    The digest of the backbone names the step, so features of another network are never found. A killed pass resumes. Raises as
    `predict.pipeline.predict` does.
    """
    whole = replace(scope, exclusions=None, chosen=None)
    corruption = {} if scope.corruption is None else {"corruption": list(scope.corruption)}
    title = title_of(scope)

    def work(step: Step) -> Output:
        job = PredictJob(
            step,
            whole,
            backbone,
            settings.pass_settings,
            answers=FeatureAnswers(),
            worker=ShardEmbedder,
            parquet=PARQUET,
        )
        return pass_over(run, title, job)

    inputs = {"model": backbone.digest, "images": scope.collection.manifest.digest}
    record = StepRecord(VERB, REVISION, {**identity(settings), **corruption}, inputs)
    output = run.find_or_run_step(title, record, work)
    found = output.summary  # the limit is no part of the step, and may have been another when it was made
    limit = RejectLimit.of_step(scope.max_rejected_percent, title, output.step)
    limit.check(found["images"] + found["rejected"], found["reasons"])
    return output


def title_of(scope: Scope) -> str:
    """The title of the step that embeds a scope."""
    named = "" if scope.corruption is None else " {} {}".format(*scope.corruption)
    return f"embed {scope.name}{named}"

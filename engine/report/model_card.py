"""The card of a model: README.md in its folder, with the front matter of the Hugging Face Hub, readable without this engine.

Names of classes and runs are those of users: they are written as JSON in a block of code, where nothing in them is read as Markdown.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import yaml

from engine import __version__
from engine.ground import storage
from engine.ground.progress import printable
from engine.metrics.score import Score
from engine.models import build as _registers_networks  # noqa: F401
from engine.report.figures import shown
from engine.report.page.graph import ancestors
from engine.report.page.lineage import Lineage, lineage
from engine.report.page.source import SPLITS, GenerationRecord, RunRecord
from engine.settings.credentials import hide_credentials

NAME = "README.md"
PIPELINES = {"segment": "image-segmentation"}
USUAL_PIPELINE = "image-classification"
MOST_LETTERS = 200
MOST_CLASSES = 1000
"""Classes that the card lists; config.json lists all."""


@dataclass(frozen=True)
class CardFacts:
    """What a card says. `config`: contents of config.json; `images`: their number by split; `steps`: (title, name) of what it was made from."""

    run: str
    model: str
    task: str
    config: dict[str, Any]
    scores: dict[str, Score]
    images: dict[str, int]
    pseudo_labels: int | None
    steps: tuple[tuple[str, str], ...]
    is_chosen: bool


def write_model_cards(record: RunRecord) -> list[str]:
    """Write the card of every model of a run into its folder; returns their paths. A model that several runs share has the card of the last one."""
    steps = lineage(record)
    images = {name: one.manifest.num_rows for name in SPLITS if (one := record.collection(name)) is not None}
    written = []
    for generation in record.generations:
        if generation.model is not None:
            facts = card_facts(record, generation, images, steps)
            storage.put(record.store.fs, f"{generation.model}/{NAME}", model_card(facts).encode())
            written.append(f"{generation.model}/{NAME}")
    return written


def card_facts(record: RunRecord, generation: GenerationRecord, images: dict[str, int], steps: Lineage) -> CardFacts:
    """The facts about a model of a run."""
    assert generation.model is not None, "asked of models that are in the store"
    config = json.loads(storage.get(record.store.fs, f"{generation.model}/config.json"))
    place = [i for i, node in enumerate(steps.nodes) if node.step == generation.model.split("/")[-2]]
    made_from = sorted(ancestors(steps.edges, place))
    return CardFacts(
        record.name,
        generation.name,
        record.settings.get("task", "classify"),
        config,
        generation.scores,
        images,
        generation.pseudo_labels,
        tuple((steps.nodes[i].title, steps.nodes[i].step) for i in made_from),
        generation is record.chosen,
    )


def model_card(facts: CardFacts) -> str:
    """The card as Markdown with front matter."""
    header = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True)
    return hide_credentials(f"---\n{header}---\n\n" + "\n".join(_body(facts)) + "\n")


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """The Hub's metadata: library, task, tags and the scores as results of the model index."""
    pipeline = PIPELINES.get(facts.task, USUAL_PIPELINE)
    results = [
        {
            "task": {"type": pipeline},
            "dataset": {"name": f"{on} images of run {_line(facts.run)}", "type": "imagefolder", "split": on},
            "metrics": [
                {
                    "type": score.name,
                    "name": f"{score.title} (95 % CI {100 * score.low:.2f} to {100 * score.high:.2f} %, {score.images} images)",
                    "value": round(score.value, 6),
                }
            ],
        }
        for on, score in facts.scores.items()
    ]
    matter: dict[str, Any] = {
        "library_name": "timm",
        "pipeline_tag": pipeline,
        "tags": [pipeline, "timm", "self-training"],
    }
    if results:
        matter["model-index"] = [{"name": _line(f"{facts.run} {facts.model}"), "results": results}]
    return matter


def _body(facts: CardFacts) -> Iterator[str]:
    names = facts.config["label_names"]
    yield f"# {facts.config['architecture']}, {len(names)} classes"
    yield ""
    chosen = "the model to use of" if facts.is_chosen else "a model of"
    yield f"This is {chosen} a self-training run. Run and model, as the run calls them:"
    yield ""
    yield from _code([facts.run, facts.model])
    yield ""
    yield "## Scores"
    yield ""
    yield from _scores(facts.scores)
    yield ""
    yield "## Data"
    yield ""
    for split, count in facts.images.items():
        yield f"- {split}: {count:,} images"
    if facts.pseudo_labels is not None:
        yield f"- pseudo-labels that it was trained on: {facts.pseudo_labels:,}"
    yield ""
    yield "## Use"
    yield ""
    yield from _use(facts)
    yield ""
    yield "## Classes"
    yield ""
    yield from _code(names[:MOST_CLASSES])
    if len(names) > MOST_CLASSES:
        yield f"\n{len(names) - MOST_CLASSES:,} more are in config.json (label_names)."
    yield ""
    yield "## Lineage"
    yield ""
    yield f"Engine {__version__}. Steps that it was made from, in order:"
    yield ""
    yield from (f"- {printable(title)}: `{step}`" for title, step in facts.steps)
    yield ""
    yield "## Licence"
    yield ""
    yield "Not recorded. State it here and as `license:` above, with regard to the images and to initial weights."


def _scores(scores: dict[str, Score]) -> Iterator[str]:
    if not scores:
        yield "Not measured: the run had no validation and no test images."
        return
    yield "| images | measure | score | 95 % interval | number of images |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for on, score in scores.items():
        span = f"{100 * score.low:.2f} to {100 * score.high:.2f} %"
        yield f"| {on} | {score.title} | {100 * score.value:.2f} % | {span} | {score.images:,} |"


def _use(facts: CardFacts) -> Iterator[str]:
    """How to load it: with plain timm, or with this engine where timm does not know the network."""
    settings = facts.config.get("engine", {}).get("model_settings", {})
    if settings.get("decoder"):
        yield "The network has a decoder that plain timm does not know. Load it with this engine, FOLDER being that of this file:"
        yield ""
        yield from _python(
            "from pathlib import Path", "from engine.models.checkpoint import load", "", 'loaded = load(Path("FOLDER"))'
        )
        return
    own = () if is_timms(facts.config["architecture"]) else ("import engine.models.build  # registers the network",)
    yield (
        "FOLDER is that of this file:"
        if not own
        else "The network is one of this engine's. FOLDER is that of this file:"
    )
    yield ""
    yield from _python(
        "import timm",
        "import torch",
        "from PIL import Image, ImageOps",
        "from timm.data import create_transform, resolve_model_data_config",
        *own,
        "",
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
        "transform = create_transform(**resolve_model_data_config(model), is_training=False)",
        'image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")',
        "with torch.no_grad():",
        "    probabilities = model(transform(image)[None]).softmax(1)[0]",
    )
    yield ""
    if facts.task == "multilabel":
        yield "An image may have several classes: use `.sigmoid()` in the place of `.softmax(1)`."
        yield ""
    yield (
        "`exif_transpose` matters: this engine turns images upright by their EXIF orientation, and plain timm does not. The index of a probability is"
        " that of the class below."
    )


def is_timms(architecture: str) -> bool:
    """Whether timm has the architecture without this engine."""
    return str(timm.model_entrypoint(architecture).__module__).startswith("timm.")


def _line(text: str) -> str:
    """A name of a user as one line."""
    return shown(printable(text), MOST_LETTERS)


def _code(texts: Sequence[str]) -> Iterator[str]:
    """Texts of users, a line each, as JSON."""
    yield "```json"
    yield from (printable(json.dumps(text, ensure_ascii=False)) for text in texts)
    yield "```"


def _python(*lines: str) -> Iterator[str]:
    yield "```python"
    yield from lines
    yield "```"

"""Demo: self-training on scikit-learn's handwritten digits, with few labels and two generations, in about a minute.

python -m jobs.demo [key=value …]
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import load
from jobs import cli
from jobs.self_train import self_train

CONFIG = Path(__file__).parent / "configs" / "demo.yaml"
LABELS_PER_CLASS = 5
VALIDATION = 250
TEST = 400


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that override those of jobs/configs/demo.yaml"
    )
    settings = load(SelfTrainSettings, CONFIG, parser.parse_args().overrides)
    unlabelled = len(load_digits().images) - 10 * LABELS_PER_CLASS - VALIDATION - TEST
    print(
        f"Demo: {10 * LABELS_PER_CLASS} labelled, {unlabelled:,} unlabelled digits, about a minute on two cores",
        flush=True,
    )
    make_digits(Path(settings.data.labelled).parent)
    self_train(settings)


def make_digits(folder: Path) -> None:
    """Write the digits: class folders of PNGs for the labelled sets, one Parquet file of encoded images for the pool.

    The pool keeps its true labels, so that the table can show how many pseudo-labels are correct; training never reads them.
    """
    if folder.exists():
        return
    digits = load_digits()
    images, truth = digits.images, digits.target
    order = np.random.default_rng(0).permutation(len(images))
    test, validation, rest = order[:TEST], order[TEST : TEST + VALIDATION], order[TEST + VALIDATION :]
    labelled = np.concatenate([rest[truth[rest] == digit][:LABELS_PER_CLASS] for digit in range(10)])
    pool = np.setdiff1d(rest, labelled)
    encoded = [_png(image) for image in images]
    for name, members in (("labelled", labelled), ("validation", validation), ("test", test)):
        for i in members:
            path = folder / name / str(truth[i]) / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded[i])
    table = pa.table(
        {"key": [f"{i:04d}" for i in pool], "image": [encoded[i] for i in pool], "label": [str(truth[i]) for i in pool]}
    )
    pq.write_table(table, folder / "pool.parquet", row_group_size=128)


def _png(image: np.ndarray) -> bytes:
    """An 8x8 digit with levels 0 to 16, as a 16x16 grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray((image * 15.9375).astype(np.uint8)).resize((16, 16), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    cli.run(main)

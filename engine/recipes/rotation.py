"""RotNet (Gidaris, Singh, Komodakis: Unsupervised representation learning by predicting image rotations, 2018).

1  Turn every image of the pool by 0, 90, 180 and 270 degrees and learn to tell by how much: all four in one batch.
2  Learn the labels from those weights, with a new head.
"""

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.pretext import fine_tune


def rotation(setup: RecipeContext) -> list[Generation]:
    """The fine-tuned model."""
    return fine_tune(setup)

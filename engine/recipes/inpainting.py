"""In-painting (Varty: Self-supervised learning on Image网, 2020).

1  Cut rectangles out of every image of the pool and learn, with a U-Net, to give the whole image back.
2  Learn the labels from the weights of its encoder, with a new head.
"""

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.pretext import fine_tune


def inpainting(setup: RecipeContext) -> list[Generation]:
    """The fine-tuned model."""
    return fine_tune(setup)

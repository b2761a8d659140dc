"""In-painting (Varty: Self-supervised learning on Image网, 2020).

1  Cut rectangles out of every image of the pool and learn, with a U-Net, to give the whole image back.
2  Learn the labels from the weights of its encoder, with a new head.
"""

from engine.recipes.pretext import fine_tuned
from engine.recipes.setup import Generation, Setup


def inpainting(setup: Setup) -> list[Generation]:
    """The fine-tuned model."""
    return fine_tuned(setup)

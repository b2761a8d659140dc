"""Self-supervised learning and computer vision (Howard, fast.ai, 2020): any pretext, then the article's way to fine-tune.

1  Learn a pretext task on the pool, briefly: `pretext.objective` is rotation, patches, inpainting, colourisation or two_views.
2  Put a new head on the body and teach it alone, the body frozen.
3  Unfreeze, and teach all of it, early layers at lower rates.
"""

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.pretext import fine_tune


def self_supervised(setup: RecipeContext) -> list[Generation]:
    """The fine-tuned model; steps 2 and 3 are one fit, `teacher.freeze_steps` long and then the rest of it."""
    return fine_tune(setup)

"""Self-training of image models at any scale: five durable verbs (fit, predict, select, gather, evaluate) over a few pinned tables."""

__version__ = "0.1.0"

"""Predictions to pseudo-labels: scores, thresholds, exact top-K a class, balance. numpy and Arrow only."""

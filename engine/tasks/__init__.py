"""What a run learns to predict of an image, one file per task: labels, network, answers, targets and how they are scored."""

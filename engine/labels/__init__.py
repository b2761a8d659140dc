"""Labels: the class list, and the sparse targets."""

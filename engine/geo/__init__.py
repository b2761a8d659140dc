"""Scenes, tiles and vectors: where pixels lie on the earth."""

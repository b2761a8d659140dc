"""Typed settings; the file tree is the YAML tree.

Names follow timm where timm has one (`img_size`, `drop`, `drop_path`, `model_ema`, `smoothing`, `opt`, `sched`). Every block is frozen: a
changed setting is a changed copy (`block.model_copy(update=…)`).
"""

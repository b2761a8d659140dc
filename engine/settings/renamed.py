"""Keys of earlier versions and what each is called now: whoever starts with an old config is answered with the new key."""

RENAMED: dict[str, str] = {
    "teacher_model": "models.teacher",
    "student_model": "models.student",
    "pretext": "fits.pretext",
    "tagging": "fits.tagging",
    "teacher": "fits.teacher",
    "student": "fits.student",
    "finetune": "fits.finetune",
    "generations": "recipe.generations",
    "warm_start": "recipe.warm_start",
    "relabel": "recipe.relabel",
    "published_noise": "recipe.published_noise",
    "finetune_img_size": "recipe.finetune_img_size",
    "distil.truth_share": "recipe.truth_share",
    "clean.folds": "recipe.folds",
    "clean.seed": "recipe.fold_seed",
    "clean.top": "recipe.top",
    "clean.threshold": "recipe.list_above",
    "clean.relabel_above": "recipe.relabel_above",
    "clean.reviewed": "recipe.reviewed",
    "clean.truth": "recipe.truth",
    "tags": "recipe.tags",
    "tags.transfer": "recipe.transfer",
    "selects": "schedule",
    "predict.amp": "predict.backend",
    "predict.further": "predict.extra_scores",
    "cluster.num_workers": "cluster.label.workers",
    "cluster.max_workers": "cluster.label.max_workers",
    "cluster.gpus_per_worker": "cluster.label.gpus_per_worker",
    "cluster.wave_shards": "cluster.label.wave_shards",
    "cluster.stall_minutes": "cluster.label.stall_minutes",
    "cluster.decode_threads": "cluster.label.decode_threads",
    "cluster.train_workers": "cluster.train.workers",
    "cluster.min_train_workers": "cluster.train.min_workers",
    "cluster.train_cpus": "cluster.train.cpus",
    "cluster.trackers": "cluster.train.trackers",
    "cluster.max_failures": "cluster.retries.max_failures",
    "cluster.max_preemptions": "cluster.retries.max_preemptions",
}
"""Old dotted key: new dotted key."""

HOW: dict[str, str] = {
    "selects": "schedule: [{select.threshold: 0.9}, {select.threshold: 0.7}], one mapping per generation",
    "predict.amp": "predict.backend=bf16 for true, and nothing for false",
    "tags": "recipe: {name: hashtags, tags: {table: …}}",
}
"""How the new key is written where its value is another one."""

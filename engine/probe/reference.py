"""The description of a network whose head is no layer of it: classes and pixels, without weights, so that nobody loads it as a classifier."""

import json
from pathlib import Path
from typing import Any

from engine.labels.classes import ClassList
from engine.models.checkpoint import CONFIG


def save_reference(folder: Path, backbone: Path, class_names: list[str], extra: dict[str, Any]) -> None:
    """Write the `config.json` of the model folder `backbone` with these classes; its weights stay in the step of the backbone."""
    config = json.loads((backbone / CONFIG).read_text())
    config |= {"num_classes": len(class_names), "label_names": class_names}
    config["pretrained_cfg"]["num_classes"] = len(class_names)
    config["engine"] |= {"classes_hash": ClassList(tuple(class_names)).hash, **extra}
    (folder / CONFIG).write_text(json.dumps(config, indent=2))

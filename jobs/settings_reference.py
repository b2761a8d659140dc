"""Write jobs/configs/README.md: every setting of every job that takes a config, with type, range, default and description.

python -m jobs.settings_reference
"""

from pathlib import Path

from engine.settings.describe import table
from jobs.submit import CONFIGURED

PATH = Path(__file__).parent / "configs" / "README.md"
INTRODUCTION = """# Settings

Written by `python -m jobs.settings_reference`; do not edit. `python -m jobs.JOB --help` shows the same for one job.

A config is YAML; `key=value` on the command line replaces a value, with dots between levels: `fits.student.lr=0.05`. `NAME` stands for a name of your
own, such as that of a stream. `recipe: rotation` is short for `recipe: {name: rotation}`; the options of a recipe name those that have it. Where a
default is empty the description names it.
"""


def text() -> str:
    """The whole file."""
    parts = [f"\n## jobs.{job}\n\n{table(kind)}\n" for job, kind in CONFIGURED.items()]
    return INTRODUCTION + "".join(parts)


def main() -> None:
    PATH.write_text(text())


if __name__ == "__main__":
    main()

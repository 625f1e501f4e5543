"""``python -m aiops_assets.cli``: the same as ``aiops``."""

from aiops_assets.cli import app

app(prog_name="aiops")

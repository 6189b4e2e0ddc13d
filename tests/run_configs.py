"""The config of a run that no files hold, for what is said of one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from subo.files.whole import read_json
from subo.runs.config import RunConfig

OLD = Path(__file__).parent / "runs-of-0.1" / "grey" / "config.json"


def run_config(likelihood: str, **data: Any) -> RunConfig:
    """That of an old run, with another likelihood and other things said of its data."""
    config = RunConfig.from_json(read_json(OLD), where=str(OLD))
    return replace(config, options={**config.options, "likelihood": likelihood}, data=replace(config.data, **data))

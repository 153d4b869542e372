"""The automations are ones that Prefect takes, but for the block that an operator puts in."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from pydantic import ValidationError

FOLDER = Path(__file__).parents[2] / "deployments" / "automations"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
BLOCK = "00000000-0000-0000-0000-000000000001"


def read(name, block=BLOCK):
    text = (FOLDER / f"{name}.yaml").read_text()
    return AutomationCore.model_validate(yaml.safe_load(text.replace("NOTIFY_BLOCK_ID", block)))


def test_each_is_in_the_operator_guide():
    guide = (FOLDER.parent / "README.md").read_text()
    assert len(NAMES) == 4
    assert all(f"`{name}.yaml`" in guide for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_prefect_takes_it(name):
    automation = read(name)
    assert automation.enabled
    assert automation.name.startswith("summidx: ")
    assert automation.description


@pytest.mark.parametrize("name", [name for name in NAMES if name != "crash-zombies"])
def test_one_that_tells_somebody_is_refused_without_a_block_and_not_silently_broken(name):
    with pytest.raises(ValidationError, match="block_document_id"):
        read(name, "NOTIFY_BLOCK_ID")


def test_a_night_may_take_two_hours_longer_and_a_server_be_away_for_minutes():
    assert read("no-nightly-for-26-hours").trigger.within == timedelta(hours=26)
    assert read("crash-zombies").trigger.within == timedelta(minutes=10)

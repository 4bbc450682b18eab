"""A scenario of a few rows and two hospitals on the tiny base, as files in a folder."""

import csv
import json
from pathlib import Path

from common.randomness import public_generator
from simulations.scenario import Scenario, load_scenario
from tests.tiny_base import WORDS

CANARY = "Zebulon7749"
"""A word that occurs in records and nowhere else, so that an output that quotes a record can be told."""

SCENARIO = """
base = {base}
base_name = "tiny"
seed = 3
output = {output}

[plan]
name = "tiny"
mode = "per-site"
rounds = 2
local_steps = 2

[plan.task]
labels = ["none", "event"]
positive_label = "event"
max_tokens = 16

[plan.adapter]
method = "lora-b"
rank = 2
targets = ["query", "value"]
top_layers = 1

[plan.privacy]
unit = "patient"
noise_multiplier = 1.0
clip_norm = 1.0
sampling_rate = 0.5
divisor = 4.0

[plan.optimizer]
learning_rate = 0.5
momentum = 0.5
schedule = "constant"

[plan.secure_aggregation]
masked = false

[data.files]
folder = "data"
train = ["train.csv"]
test = ["test.csv"]

[hospitals]
count = 2

[baseline]
epochs = 2
batch_rows = 8
"""


def write_tiny_scenario(folder: Path, base: Path) -> Path:
    """Write `scenario.toml` and its data below `folder`; runs go to `folder/runs`."""
    write_rows(folder / "data" / "train.csv", "p", patients=20)
    write_rows(folder / "data" / "test.csv", "t", patients=8)
    path = folder / "scenario.toml"
    path.write_text(SCENARIO.format(base=json.dumps(str(base)), output=json.dumps(str(folder / "runs"))))
    return path


def write_rows(path: Path, prefix: str, patients: int) -> None:
    """Two rows a patient; a row is an event if it has the word rash."""
    generator = public_generator(0, "tiny rows", prefix)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("patient_id", "text", "label"))
        for row in range(2 * patients):
            words = [str(word) for word in generator.choice([word for word in WORDS if word != "rash"], 6)]
            label = ("none", "event")[row % 3 == 0]
            words += ["rash"] if label == "event" else ["well"]
            writer.writerow((f"{prefix}{row // 2}-{CANARY}", " ".join([*words, CANARY]), label))


def tiny_scenario(folder: Path, base: Path, *overrides: str) -> Scenario:
    """The written scenario, with some keys changed."""
    return load_scenario(write_tiny_scenario(folder, base), overrides)

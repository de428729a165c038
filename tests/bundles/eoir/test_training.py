"""What happens to real runs of train.json: kills, damage, several processes, other precisions."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common.checkpoint import load_checkpoint
from common.phantom import write_phantom
from tools.benchmark.training import bits

ROOT = Path(__file__).parents[3]
CONFIGS = "bundles/eoir/configs"
MULTI = f"{CONFIGS}/multi_gpu_train.json"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")
SHORT = {"max_epochs": 4, "steps_per_epoch": 3, "val_interval": 2, "channels": 4, "kernel_sizes": [5, 3, 3, 3, 3]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Eight phantoms: three for training, and three pairs of others, an odd number, for validation."""
    folder = write_phantom(tmp_path_factory.mktemp("phantom"), subjects=8, size=(32, 32, 32)).parent
    content = json.loads((folder / "datalist.json").read_text())
    pairs = content["validation"] + content["testing"]
    content["validation"] = (pairs * 3)[:3]
    content["testing"] = []
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def command(dataset: Path, out: Path, *overlays: str, launcher: tuple[str, ...] = (), **overrides) -> list[str]:
    files = [f"{CONFIGS}/train.json", *overlays]
    settings = SHORT | {"dataset_dir": dataset, "ckpt_dir": out / "models", "output_dir": out / "eval"} | overrides
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return [sys.executable, *launcher, "-m", "monai.bundle", "run", "--config_file", str(files), *words]


def run(*arguments, **overrides) -> subprocess.CompletedProcess:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(*arguments, **overrides), cwd=ROOT, capture_output=True, text=True, env=environment)


def kill_after(checkpoint: Path, words: list[str]) -> None:
    """Start a run and kill it with SIGKILL while it works on the epoch after ``checkpoint``."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment
    )
    while not checkpoint.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # loader workers too
    process.wait()


def weights(out: Path, name: str = "model.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(out / "models" / name)


def assert_equal_runs(first: Path, second: Path) -> None:
    """Bitwise: the newest checkpoint (weights, optimizer, schedule, best metric) and the best weights."""
    for name in ("model.pt", "last.pt", "checkpoints/epoch_00004.pt"):
        assert bits(weights(first, name)) == bits(weights(second, name)), name


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole")
    done = run(dataset, out, lr_decay_power=0.9)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)], ids=["no workers", "two workers"])
def test_a_killed_and_resumed_run_is_bitwise_one_that_was_not(whole, dataset, tmp_path, workers):
    settings = {"lr_decay_power": 0.9, "num_workers": workers}
    kill_after(tmp_path / "models/checkpoints/epoch_00002.pt", command(dataset, tmp_path, **settings))
    done = run(dataset, tmp_path, resume=True, **settings)
    assert done.returncode == 0 and "going on after epoch 2 of 4" in done.stdout + done.stderr, done.stderr[-2000:]
    assert_equal_runs(whole, tmp_path)


@pytest.mark.slow
def test_another_seed_gives_other_weights(whole, dataset, tmp_path):
    assert run(dataset, tmp_path, lr_decay_power=0.9, seed=1).returncode == 0
    assert bits(weights(whole)) != bits(weights(tmp_path))


@pytest.mark.slow
def test_an_early_stop_holds_after_a_resume(dataset, tmp_path):
    """A step of zero never improves: the second validation is the first one of waiting."""
    settings = {"learning_rate": 0, "val_interval": 1, "patience": 1}
    assert run(dataset, tmp_path, **settings).returncode == 0
    assert not (tmp_path / "models/checkpoints/epoch_00003.pt").exists()
    again = run(dataset, tmp_path, resume=True, **settings)
    assert again.returncode == 0 and "nothing is left to do" in again.stdout + again.stderr
    assert {p.name for p in (tmp_path / "models/checkpoints").iterdir()} == {"epoch_00001.pt", "epoch_00002.pt"}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"precision": "float16"}, {"accumulate": 2}], ids=str)
def test_other_precisions_and_accumulation_train(whole, dataset, tmp_path, settings):
    done = run(dataset, tmp_path, max_epochs=2, **settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights(tmp_path).values())
    said = (done.stdout + done.stderr).count("float16 is for GPUs")
    assert said == (1 if settings.get("precision") == "float16" else 0)


@pytest.mark.parametrize("folder", ["models", "eval"])
def test_a_folder_that_cannot_be_written_is_one_sentence(dataset, tmp_path, folder):
    (tmp_path / folder).touch()
    done = run(dataset, tmp_path)
    assert done.returncode != 0 and "cannot be written to" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_no_stump_and_the_run_goes_on_later(dataset, tmp_path):
    """A limit on the size of files is the full disk that needs no other user's rights."""
    words = command(dataset, tmp_path, channels=8, max_epochs=2, val_interval=1)
    limited = ["bash", "-c", 'ulimit -f 300; exec "$@"', "-", *words]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "could not be written" in done.stderr.splitlines()[-1]
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    again = run(dataset, tmp_path, channels=8, max_epochs=2, val_interval=1, resume=True)
    assert again.returncode == 0 and (tmp_path / "models/checkpoints/epoch_00002.pt").is_file()


@pytest.mark.reference
def test_a_run_is_tracked_by_mlflow(dataset, tmp_path):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install -e '.[tracking]'")
    done = run(dataset, tmp_path, max_epochs=2, val_interval=1, tracking="mlflow")
    assert done.returncode == 0, done.stderr[-2000:]
    with sqlite3.connect(tmp_path / "eval" / "mlruns.db") as database:
        counts = dict(database.execute("select key, count(*) from metrics group by key"))
    assert counts["train_loss"] == 6 and counts["val_dice"] == 2


@pytest.mark.slow
def test_two_processes_train_and_score_as_one(dataset, tmp_path):
    """Three pairs in batches of two and three pairs to validate, which two ranks share unevenly.

    Plain gradient descent, because Adam turns rounding errors of small gradients into whole steps.
    """
    overlay = tmp_path / "sgd.json"
    optimizer = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1}
    overlay.write_text(json.dumps({"optimizer": optimizer}))
    settings = {"max_epochs": 1, "val_interval": 1, "steps_per_epoch": 3}
    one = run(dataset, tmp_path / "one", str(overlay), batch_size=2, **settings)
    two = run(dataset, tmp_path / "two", MULTI, str(overlay), launcher=TORCHRUN, **settings)
    assert one.returncode == 0, one.stderr[-2000:]
    assert two.returncode == 0, two.stderr[-2000:]
    for name, expected in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], expected, rtol=1e-3, atol=1e-5)
    assert len(metrics_said(one)) == len(metrics_said(two)) == 1  # the other rank is silent
    alone, together = (numbers(metrics_said(done)[0]) for done in (one, two))
    # weights that differ by rounding may turn a label on an edge
    assert together == pytest.approx(alone, abs=5e-4) and len(alone) == 3


@pytest.mark.slow
def test_two_processes_that_stopped_go_on_bitwise(dataset, tmp_path):
    for name, epochs, resume in (("whole", 3, False), ("parts", 2, False), ("parts", 3, True)):
        settings = {"max_epochs": epochs, "val_interval": 1, "resume": resume}
        done = run(dataset, tmp_path / name, MULTI, launcher=TORCHRUN, **settings)
        assert done.returncode == 0, done.stderr[-2000:]
    assert bits(weights(tmp_path / "whole", "last.pt")) == bits(weights(tmp_path / "parts", "last.pt"))


def numbers(line: str) -> dict[str, float]:
    """The metrics of a line by name."""
    return {name: float(value) for name, value in re.findall(r"(\w+): ([-\d.]+)", line)}


def metrics_said(done: subprocess.CompletedProcess) -> list[str]:
    return [line.split("Metrics -- ")[1] for line in (done.stdout + done.stderr).splitlines() if "Metrics -- " in line]

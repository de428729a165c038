import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from torch import nn

from common.engine import (
    CheckpointBest,
    GuardedStep,
    LoadWeights,
    PreparePair,
    Progress,
    SetEpoch,
    TrainingView,
    loss_of,
)
from common.errors import RegInputError, RegNumericsError


def trainer(loss_values, **guard) -> tuple[SimpleNamespace, GuardedStep]:
    """A stand-in with the attributes that MONAI's SupervisedTrainer gives to an iteration_update."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    values = iter(loss_values)
    engine = SimpleNamespace(
        state=SimpleNamespace(device="cpu", iteration=0, output=None),
        non_blocking=False,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        prepare_batch=lambda batch, device, non_blocking: (batch, {}),
        inferer=lambda image, net: net(image),
        loss_function=lambda pred, pair: next(values) * pred.sum(),
    )
    return engine, GuardedStep(**guard)


def test_a_batch_becomes_a_two_channel_image_moving_first():
    moving, fixed = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    image, pair = PreparePair()({"moving": MetaTensor(moving), "fixed": fixed, "name": ["x"]}, "cpu")
    assert image.shape == (1, 2, 4, 4) and float(image[:, 0].sum()) == 0 and float(image[:, 1].sum()) == 16
    assert set(pair) == {"moving", "fixed"} and type(pair["moving"]) is torch.Tensor


def test_the_view_calls_the_other_method_and_shares_the_parameters():
    network = nn.Linear(2, 2)
    network.double_it = lambda x: 2 * x
    view = TrainingView(network, "double_it")
    assert view(3) == 6 and [p.data_ptr() for p in view.parameters()] == [p.data_ptr() for p in network.parameters()]


def test_a_finite_step_changes_the_weights():
    engine, step = trainer([1.0])
    output = step(engine, torch.ones(1, 1))
    assert float(engine.network.weight.detach()) == pytest.approx(0.9) and float(output["loss"]) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_skipped_and_said(bad, caplog):
    engine, step = trainer([bad])
    step(engine, torch.ones(1, 1))
    assert float(engine.network.weight.detach()) == 1 and "skipped" in caplog.text


def test_a_gradient_that_is_not_finite_is_skipped():
    engine, step = trainer([1.0])
    engine.network.weight.register_hook(lambda grad: grad * math.nan)
    step(engine, torch.ones(1, 1))
    assert float(engine.network.weight.detach()) == 1


def test_three_bad_steps_in_a_row_stop_the_run():
    engine, step = trainer([math.nan] * 3)
    step(engine, torch.ones(1, 1))
    step(engine, torch.ones(1, 1))
    with pytest.raises(RegNumericsError, match="3 steps in a row"):
        step(engine, torch.ones(1, 1))


def test_a_good_step_starts_the_count_anew():
    engine, step = trainer([math.nan, math.nan, 1.0, math.nan, math.nan])
    for _ in range(5):
        step(engine, torch.ones(1, 1))
    assert float(engine.network.weight.detach()) == pytest.approx(0.9)


def test_clipping_bounds_the_step():
    engine, step = trainer([100.0], max_norm=1.0)
    step(engine, torch.ones(1, 1))
    assert float(engine.network.weight.detach()) == pytest.approx(0.9, abs=1e-4)


def evaluator_with(value: float) -> Engine:
    engine = Engine(lambda *_: None)
    engine.state.metrics = {"val_dice": value}
    return engine


def test_the_best_weights_stay_and_the_last_follow(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    save = CheckpointBest(network, str(tmp_path), "val_dice")
    for weight, value in ((1.0, 0.5), (2.0, 0.7), (3.0, 0.6)):
        nn.init.constant_(network.weight, weight)
        save(evaluator_with(value))
    loaded = {name: float(torch.load(tmp_path / name, weights_only=True)["weight"]) for name in ("model.pt", "last.pt")}
    assert loaded == {"model.pt": 2.0, "last.pt": 3.0} and len(list(tmp_path.iterdir())) == 2


def test_without_a_metric_the_newest_weights_are_kept(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    save = CheckpointBest(network, str(tmp_path), "val_dice")
    for weight in (1.0, 2.0):
        nn.init.constant_(network.weight, weight)
        save(evaluator_with(math.nan))
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["weight"]) == 2


def test_weights_come_back(tmp_path):
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    LoadWeights(other, str(tmp_path / "model.pt"), "train")(Engine(lambda *_: None))
    torch.testing.assert_close(other.weight, network.weight)


def test_missing_weights_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(RegInputError, match=r"model\.pt is missing.*`train it`"):
        LoadWeights(nn.Linear(1, 1), str(tmp_path / "model.pt"), "train it")(Engine(lambda *_: None))


@pytest.mark.parametrize("content", ["garbage", "truncated", "other network"])
def test_wrong_weights_are_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(3, 3).state_dict(), path)
    if content == "garbage":
        path.write_bytes(b"<html>")
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RegInputError, match="does not hold this network's weights") as error:
        LoadWeights(nn.Linear(2, 2), str(path), "train")(Engine(lambda *_: None))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("output", "loss"), [({"loss": torch.tensor(2.0)}, 2), ([{"loss": torch.tensor(2.0)}], 2), ([{"pred": 1}], None)]
)
def test_the_loss_is_found_in_any_output(output, loss):
    assert loss_of(output) == loss


def test_an_error_before_the_bar_opens_stays_the_error(tmp_path):
    engine = Engine(lambda *_: None)
    LoadWeights(nn.Linear(1, 1), str(tmp_path / "no.pt"), "train it").attach(engine)
    Progress("test").attach(engine)
    with pytest.raises(RegInputError, match="train it"):
        engine.run([0])


def test_the_dataset_learns_the_epoch():
    epochs = []
    engine = Engine(lambda *_: None)
    SetEpoch(SimpleNamespace(set_epoch=epochs.append)).attach(engine)
    engine.run([0], max_epochs=3)
    assert epochs == [1, 2, 3]

import logging
import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import nn

from common.checkpoint import LoadWeights
from common.engine import PairPicture, PreparePair, Progress, StartEpoch, StopEarly, TrainingView
from common.errors import RegInputError


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


@pytest.mark.parametrize("output", [[{"loss": torch.tensor(2.0)}], [{"pred": 1}], None])
def test_progress_shows_the_loss_of_any_output(output, capsys):
    engine = Engine(lambda *_: output)
    Progress("steps").attach(engine)
    engine.run([0, 1])
    shown = capsys.readouterr().err
    assert "2/2" in shown and ("loss=2.0000" in shown) == (output is not None and "loss" in output[0])


def test_an_error_before_the_bar_opens_stays_the_error(tmp_path):
    engine = Engine(lambda *_: None)
    LoadWeights(nn.Linear(1, 1), str(tmp_path / "no.pt"), "train it").attach(engine)
    Progress("test").attach(engine)
    with pytest.raises(RegInputError, match="train it"):
        engine.run([0])


class Epochs:
    """A data set that remembers what it was told."""

    def __init__(self):
        self.told = []

    def set_epoch(self, epoch):
        self.told.append(epoch)


def draws_of_epochs(seed: int, first: int = 1, last: int = 3) -> tuple[list, list[int]]:
    dataset, drawn = Epochs(), []

    def draw(*_):
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))

    engine = Engine(draw)
    engine.state.epoch = first - 1
    StartEpoch(dataset, seed).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", first - 1))
    engine.run([0, 1], max_epochs=last)
    return drawn, dataset.told


def test_an_epochs_random_numbers_depend_on_seed_and_epoch_alone():
    whole, told = draws_of_epochs(seed=5)
    torch.rand(17), random.random(), np.random.rand(3)
    assert told == [1, 2, 3] and len(set(whole)) == 6
    assert draws_of_epochs(seed=5, first=3)[0] == whole[4:]
    assert draws_of_epochs(seed=6)[0] != whole


def validated(
    values: list[float], patience: int | None, state: dict | None = None, **settings
) -> tuple[int, StopEarly]:
    """Number of epochs that a run of as many validations as values lasts."""
    trainer, evaluator, past = Engine(lambda *_: None), Engine(lambda *_: None), iter(values)
    stop = StopEarly(evaluator, "val_dice", patience, **settings)

    evaluator.add_event_handler(Events.STARTED, lambda e: e.state.metrics.update(val_dice=current[0]))
    current = [0.0]

    def validate(_):
        current[0] = next(past)
        evaluator.run([0])

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    stop.attach(trainer)
    if state is not None:
        stop.load_state_dict(state)
    trainer.run([0], max_epochs=len(values))
    return trainer.state.epoch, stop


def test_a_run_ends_after_patience_validations_without_a_rise():
    assert validated([0.1, 0.3, 0.2, 0.3, 0.9], patience=2)[0] == 4
    assert validated([0.1, 0.3, 0.2, 0.4, 0.9], patience=2)[0] == 5
    assert validated([0.3, 0.2, 0.1, 0.0], patience=None)[0] == 4
    assert validated([0.3, 0.2, 0.1, 0.0], patience=2, lower_is_better=True)[0] == 4
    assert validated([0.3, 0.4, 0.5, 0.0], patience=2, lower_is_better=True)[0] == 3


def test_waiting_goes_on_in_a_resumed_run_and_a_stopped_one_stays_stopped(caplog):
    _, half = validated([0.3, 0.2], patience=2)
    assert validated([0.1, 0.9, 0.9], patience=2, state=half.state_dict())[0] == 1
    _, stopped = validated([0.3, 0.2, 0.1, 0.9], patience=2)
    with caplog.at_level(logging.WARNING):
        assert validated([0.9], patience=2, state=stopped.state_dict())[0] == 0
    assert "nothing is left to do" in caplog.text
    assert validated([0.9], patience=5, state=stopped.state_dict())[0] == 1


class Writer:
    """What TensorBoard's writer is asked for."""

    def __init__(self):
        self.figures = []

    def add_figure(self, tag, figure, global_step):
        self.figures.append((tag, figure, global_step))


def test_a_validation_leaves_a_picture_and_a_page_of_its_first_pair(tmp_path):
    image = torch.rand(2, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    items = [{"image": image, "pred": torch.zeros(3, 8, 9, 10), "label": {}} for _ in range(2)]
    engine, writer, page = Engine(lambda _, batch: [batch]), Writer(), tmp_path / "eval" / "validation.html"
    header = {"spacing_mm": [1.0, 1.0, 2.0], "orientation": "LIA", "labels": {}}
    PairPicture(writer, page=str(page), header=header).attach(engine)
    engine.run(items)
    ((tag, figure, step),) = writer.figures
    assert (tag, step) == ("validation", 1)
    axial = next(axes for axes in figure.axes if axes.get_label() == "fixed, axial")
    assert axial.get_aspect() == pytest.approx(2.0)  # voxels of the header, not cubes
    assert "<title>Epoch 1: moving image onto fixed image</title>" in page.read_text()

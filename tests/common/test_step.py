import math
from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import nn
from torch.utils.data import DataLoader

from common.errors import RegInputError, RegNumericsError
from common.step import ForwardStep, GuardedStep


def trainer(loss_values, batches: int = 1000, **guard) -> tuple[SimpleNamespace, GuardedStep]:
    """A stand-in with the attributes that MONAI's SupervisedTrainer gives to an iteration_update."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    values = iter(loss_values)
    engine = SimpleNamespace(
        state=SimpleNamespace(device="cpu", iteration=0, epoch_length=batches, output=None),
        data_loader=[],
        non_blocking=False,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        prepare_batch=lambda batch, device, non_blocking: (batch, {}),
        inferer=lambda image, net: net(image),
        loss_function=lambda pred, pair: next(values) * pred.float().sum(),
    )
    guarded = GuardedStep(**guard)

    def step(engine, batch):
        engine.state.iteration += 1
        return guarded(engine, batch)

    return engine, step


def test_a_finite_step_changes_the_weights():
    engine, step = trainer([1.0])
    (output,) = step(engine, torch.ones(1, 1))
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


def supervised(batch_size: int, items: int, optimizer: str = "SGD", **guard) -> dict[str, torch.Tensor]:
    """Weights after two epochs of MONAI's own trainer with our step on a small regression in float64."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    data = torch.rand(items, 3, dtype=torch.float64)
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(data, batch_size=batch_size),
        network=network,
        optimizer=getattr(torch.optim, optimizer)(network.parameters(), lr=0.1),
        loss_function=lambda pred, pair: (pred - pair["target"]).square().mean(),
        prepare_batch=lambda batch, device, non_blocking: (batch, {"target": batch.sum(1, keepdim=True)}),
        iteration_update=GuardedStep(**guard),
        decollate=False,
    ).run()
    return network.state_dict()


@pytest.mark.parametrize("items", [8, 7])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_two_accumulated_batches_are_one_of_twice_the_size(items, optimizer):
    """Seven items in batches of one: the last step of the epoch has one batch, as the last batch of two has one."""
    whole = supervised(2, items, optimizer)
    parts = supervised(1, items, optimizer, accumulate=2)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-12, atol=1e-14)
    other = supervised(1, items, optimizer, accumulate=3)
    assert any(not torch.allclose(other[name], whole[name], rtol=1e-3) for name in whole)


def test_a_step_with_one_bad_batch_among_several_is_skipped_whole():
    engine, step = trainer([1.0, math.nan, 1.0, 1.0], accumulate=2)
    for _ in range(2):
        step(engine, torch.ones(1, 1))
    assert float(engine.network.weight.detach()) == 1
    for _ in range(2):
        step(engine, torch.ones(1, 1))
    assert float(engine.network.weight.detach()) == pytest.approx(0.9)


def test_the_network_runs_in_the_precision_and_the_weights_stay_float32():
    engine, _ = trainer([1.0])
    guarded = GuardedStep()
    guarded.dtype = torch.bfloat16  # what a GPU gets; the mechanism is the same here
    engine.state.iteration = 1
    (output,) = guarded(engine, torch.full((1, 1), 1.00390625))  # 1 + 2**-8 is no bfloat16 number
    assert output["pred"].dtype == torch.bfloat16 and float(output["pred"].detach()) == 1
    assert engine.network.weight.dtype == torch.float32 and float(engine.network.weight.detach()) == pytest.approx(0.9)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_cpu_stays_with_float32_and_says_so_once(precision, caplog):
    guarded = GuardedStep(precision=precision, device="cpu")
    assert guarded.dtype == torch.float32 and not guarded.scaler.is_enabled()
    assert caplog.text.count(f"precision {precision} is for GPUs") == 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_trains_on_a_gpu(precision):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).cuda()
    trainer = SupervisedTrainer(
        device=torch.device("cuda"),
        max_epochs=300,
        train_data_loader=DataLoader(torch.rand(8, 3), batch_size=8),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=0.01),
        loss_function=lambda pred, pair: (pred.float() - pair["target"]).square().mean(),
        prepare_batch=lambda batch, device, _: (
            batch.to(device),
            {"target": batch.sum(1, keepdim=True).to(device)},
        ),
        iteration_update=GuardedStep(precision=precision, device="cuda"),
        decollate=False,
    )
    trainer.run()
    assert float(trainer.state.output[0]["loss"]) < 1e-2


@pytest.mark.parametrize(
    ("setting", "found"), [({"precision": "half"}, "'half'"), ({"accumulate": 0}, "accumulate is 0")]
)
def test_wrong_settings_are_refused(setting, found):
    with pytest.raises(RegInputError, match=found):
        GuardedStep(**setting)


def test_the_count_of_skipped_steps_goes_on_after_a_resume():
    engine, _ = trainer([math.nan] * 2)
    first = GuardedStep(max_skipped=2)
    first.skipped_in_a_row = 1
    second = GuardedStep(max_skipped=2)
    second.load_state_dict(first.state_dict())
    engine.state.iteration = 1
    with pytest.raises(RegNumericsError, match="--resume true"):
        second(engine, torch.ones(1, 1))


def test_a_network_that_optimises_inside_is_run_once_a_pair_and_its_result_processed():
    """Without an optimizer, a loss or a parameter, under the trainer that train.json has to have."""
    seen, results = [], []

    class Doubling(nn.Module):
        def forward(self, image):
            seen.append(torch.is_grad_enabled())
            return 2 * image

    def keep(item):
        results.append(item["pred"].item())
        return item

    data = [{"image": torch.full((1,), float(k)), "label": torch.zeros(1)} for k in range(3)]
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(data, batch_size=1),
        network=Doubling(),
        optimizer=None,
        loss_function=None,
        iteration_update=ForwardStep(),
        postprocessing=keep,
    )
    trainer.run()
    assert seen == [True] * 3 and results == [0.0, 2.0, 4.0]

"""What several ranks do together, in two real processes with gloo."""

import math

import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from common.errors import RegNumericsError
from common.scoring import PairMetric
from common.step import GuardedStep

PAIRS = 7


def train(rank: int, ranks: int, batch_size: int, bad_steps: tuple[int, ...] = (), **guard) -> dict[str, torch.Tensor]:
    """Weights after two epochs over seven pairs; the loss of the given steps is NaN on the last rank alone."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    data = torch.rand(PAIRS, 3, dtype=torch.float64)
    sampler = DistributedSampler(data, ranks, rank, shuffle=False)

    def loss(pred, pair):
        bad = rank == ranks - 1 and trainer.state.iteration in bad_steps
        return (pred - pair["target"]).square().mean() * (math.nan if bad else 1)

    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=DataLoader(data, batch_size=batch_size, sampler=sampler),
        network=DistributedDataParallel(network) if ranks > 1 else network,
        optimizer=torch.optim.Adam(network.parameters(), lr=0.1),
        loss_function=loss,
        prepare_batch=lambda batch, device, non_blocking: (batch, {"target": batch.sum(1, keepdim=True)}),
        iteration_update=GuardedStep(**guard),
        decollate=False,
    )
    trainer.run()
    return network.state_dict()


class Value(PairMetric):
    """The one number of a pair."""

    def of_pair(self, ddf, pair):
        return float(ddf)


def gathered(rank: int, ranks: int) -> list[float]:
    """What a metric holds on a rank after seven pairs were dealt out."""
    data = torch.arange(float(PAIRS))
    loader = DataLoader(data, sampler=DistributedSampler(data, ranks, rank, shuffle=False))
    evaluator = Engine(lambda _, batch: [{"pred": batch[0], "label": {}}])
    evaluator.data_loader = loader
    metric = Value()
    metric.attach(evaluator, "value")
    evaluator.run(loader)
    return [*metric.values, evaluator.state.metrics["value"]]


def work(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    results = {
        "one": train(rank, ranks, 1),
        "two": train(rank, ranks, 2),
        "accumulated": train(rank, ranks, 1, accumulate=2),
        "skipped": train(rank, ranks, 1, bad_steps=(2,)),
        "skipped accumulated": train(rank, ranks, 1, accumulate=2, bad_steps=(1,)),
        "values": gathered(rank, ranks),
    }
    try:
        train(rank, ranks, 1, bad_steps=(1, 2, 3))
    except RegNumericsError as error:
        results["stopped"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("ranks"))
    multiprocessing.spawn(work, (2, folder), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(2)]


def assert_same(found: dict, expected: dict) -> None:
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("case", "batch_size"), [("one", 2), ("two", 4), ("accumulated", 4)])
def test_two_ranks_give_the_weights_of_one_with_twice_the_batch_and_count_no_pair_twice(ranks, case, batch_size):
    expected = train(0, 1, batch_size)
    for rank in ranks:
        assert_same(rank[case], expected)


@pytest.mark.parametrize(("case", "guard"), [("skipped", {}), ("skipped accumulated", {"accumulate": 2})])
def test_all_ranks_skip_the_step_that_is_bad_on_one(ranks, case, guard):
    bad = (2,) if not guard else (1,)
    expected = train(0, 1, 2, bad_steps=bad, **guard)
    assert_same(ranks[0][case], expected)
    assert_same(ranks[1][case], expected)


def test_all_ranks_stop_together(ranks):
    assert ranks[0]["stopped"] == ranks[1]["stopped"] and "3 steps in a row" in ranks[0]["stopped"]


def test_metrics_have_every_pair_once_and_in_order_on_every_rank(ranks):
    expected = [*map(float, range(PAIRS)), sum(range(PAIRS)) / PAIRS]
    assert [rank["values"] for rank in ranks] == [expected, expected]


def test_a_metric_of_one_process_is_left_alone():
    loader = DataLoader(torch.arange(3.0))
    evaluator = Engine(lambda _, batch: [{"pred": batch[0], "label": {}}])
    evaluator.data_loader = loader
    metric = Value()
    metric.attach(evaluator, "value")
    evaluator.run(loader)
    assert metric.values == [0, 1, 2] and evaluator.state.metrics["value"] == 1

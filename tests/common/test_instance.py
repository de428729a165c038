"""The loop over one pair against problems with a known answer."""

import math

import pytest
import torch

from common.errors import RegInputError, RegNumericsError
from common.instance import Plateau, minimize


def bowl(start=(3.0, -2.0), learning_rate=0.1):
    """A parameter, the terms |x - 1|^2 of its entries, and plain gradient descent."""
    x = torch.tensor(start, requires_grad=True)
    return x, lambda: {"a": (x[0] - 1) ** 2, "b": (x[1] - 1) ** 2}, torch.optim.SGD([x], learning_rate)


def test_gradient_descent_follows_its_formula():
    x, terms, optimizer = bowl()
    trace = minimize(terms, optimizer, 5)
    assert x.tolist() == pytest.approx([1 + 2 * 0.8**5, 1 - 3 * 0.8**5], rel=1e-5)
    assert trace.terms["a"] == pytest.approx([4 * 0.64**k for k in range(5)], rel=1e-5)
    assert trace.loss == pytest.approx([13 * 0.64**k for k in range(5)], rel=1e-5)


def test_gradients_are_on_inside_whatever_the_caller_has():
    for off in (torch.no_grad, torch.inference_mode):
        with off(), torch.inference_mode(False):
            x, terms, optimizer = bowl()
        with off():
            minimize(terms, optimizer, 1)
        assert x.tolist() == pytest.approx([2.6, -1.4])


def test_the_scheduler_steps_with_the_optimizer():
    x, terms, optimizer = bowl()
    minimize(terms, optimizer, 2, scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
    assert x[0].item() == pytest.approx(1 + 2 * 0.8 * 0.9)


def test_terms_may_go_backward_by_themselves():
    x, _, optimizer = bowl()

    def parts():
        for entry in x.unbind():
            ((entry - 1) ** 2).backward(retain_graph=True)
        return {"all": ((x - 1) ** 2).sum().detach()}

    minimize(parts, optimizer, 5)
    assert x.tolist() == pytest.approx([1 + 2 * 0.8**5, 1 - 3 * 0.8**5], rel=1e-5)


def test_a_plateau_stops_it():
    _, terms, optimizer = bowl(start=(1.0, 1.0))
    assert len(minimize(terms, optimizer, 100, stop=Plateau(7)).loss) == 8


def test_what_still_falls_goes_on():
    _, terms, optimizer = bowl()
    assert len(minimize(terms, optimizer, 20, stop=Plateau(1, tolerance=0.3)).loss) == 20
    _, terms, optimizer = bowl()
    assert len(minimize(terms, optimizer, 20, stop=Plateau(1, tolerance=0.4)).loss) == 2


def test_every_step_is_reported():
    seen = []
    _, terms, optimizer = bowl()
    minimize(terms, optimizer, 2, report=lambda step, values: seen.append((step, values["a"])))
    assert seen == [(1, 4.0), (2, pytest.approx(2.56))]


def test_a_loss_that_is_not_finite_leaves_the_parameters_before_it():
    x, _, optimizer = bowl()
    with pytest.raises(RegNumericsError, match="step 1"):
        minimize(lambda: {"a": x.sum() * math.nan}, optimizer, 3)
    assert x.tolist() == [3.0, -2.0]


@pytest.mark.parametrize("settings", [{"patience": 0}, {"patience": 3, "tolerance": -1.0}])
def test_a_stop_rule_that_cannot_be_is_refused(settings):
    with pytest.raises(RegInputError, match="expected at least"):
        Plateau(**settings)

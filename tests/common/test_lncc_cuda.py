"""LNCC by triton's kernels: on a GPU where there is one, else in triton's interpreter (see test_kernels_cuda.py)."""

import json
import os

import pytest
import torch

from common.lncc import lncc, lncc_mean
from tests.common.test_lncc import FORMULAS, golden_images
from tests.common.test_lncc_terms import HARD, hard_pair
from tests.golden import FOLDER
from tests.lncc_oracle import (
    HALF_FLOORED,
    OPTIONS,
    assert_agrees_with_reference,
    oracle,
    oracle_gradient,
    random_pair,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = "cpu" if INTERPRETED else "cuda"
SLOW = [pytest.mark.slow] if INTERPRETED else []  # the interpreter takes seconds for what is nothing to a GPU
CASES = json.loads((FOLDER / "lncc.json").read_text())["cases"]


def pair(*shape: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Two images on the device, ready for gradients."""
    return [image.detach().to(DEVICE).requires_grad_() for image in random_pair(*shape, dtype=dtype)]


@pytest.fixture(autouse=True)
def launch(monkeypatch):
    """The module whose tile sizes tests change; the interpreter is quicker with few large programs."""
    from common import lncc_cuda

    if INTERPRETED:
        monkeypatch.setattr(lncc_cuda, "LANES", 1024)
    return lncc_cuda


@pytest.fixture
def sums_in(launch, monkeypatch):
    """The precision of every sweep, and how many volumes it had."""
    seen = []
    sweep = launch.Sweep
    monkeypatch.setattr(launch, "Sweep", lambda *a: seen.append((a[-1], len(a[0]))) or sweep(*a))
    return seen


def slow(test):
    """Mark a test that is slow in the interpreter."""
    return pytest.mark.slow(test) if INTERPRETED else test


def in_parts(cases: list, parts: int) -> list:
    """Each of so many cases for the interpreter, which takes minutes for all of them; all for a GPU."""
    return cases[:: parts if INTERPRETED else 1]


def quick(cases: list, count: int) -> list:
    """Test cases, of which all but the first ``count`` are slow in the interpreter."""
    cases = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [*cases[:count], *(pytest.param(*case, marks=SLOW) for case in cases[count:])]


def results(fixed, warped, kernel_size, backend, **options):
    """Map, mean, and both gradients of each; the map's under an uneven upstream gradient."""
    weight = torch.rand(fixed.shape, dtype=fixed.dtype, generator=torch.Generator().manual_seed(3)).to(fixed.device)
    value = lncc(fixed, warped, kernel_size, backend=backend, **options)
    mean = lncc_mean(fixed, warped, kernel_size, backend=backend, **options)
    gradients = (torch.autograd.grad(of, (fixed, warped)) for of in ((weight * value).sum(), mean))
    return [value.detach(), mean.detach(), *(gradient for both in gradients for gradient in both)]


GOLDEN = [("2d_w9", program) for program in FORMULAS]  # the smallest
GOLDEN += [(name, program) for name in CASES if name != "2d_w9" for program in in_parts(list(FORMULAS), 3)]


@pytest.mark.parametrize(("name", "program"), quick(GOLDEN, 1))
def test_value_of_every_published_program(name, program):
    options, offset, sign = FORMULAS[program]
    images = [image.to(DEVICE) for image in golden_images(CASES[name])]
    value = offset + sign * lncc_mean(*images, CASES[name]["window"], backend="triton", **options)
    assert float(value) == pytest.approx(CASES[name][program], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("name",), quick(list(CASES), 0))
def test_float32_value_and_gradient_are_the_golden_ones(name):
    fixed, warped = (image.to(DEVICE) for image in golden_images(CASES[name], torch.float32))
    value = -lncc_mean(fixed, warped.requires_grad_(), CASES[name]["window"], backend="triton")
    (gradient,) = torch.autograd.grad(value, warped)
    golden = CASES[name]["gradient_voxelmorph"]
    assert float(value.detach()) == pytest.approx(CASES[name]["voxelmorph"], abs=2e-6)
    assert float(gradient.norm()) == pytest.approx(golden["l2"], rel=1e-5)
    assert float(gradient.abs().max()) == pytest.approx(golden["max_abs"], rel=2e-5)


FORMULA_CASES = [
    (options, shape, kernel_size, dtype)
    for shape, kernel_size, dtype in [
        ((2, 2, 5, 4, 3), 3, torch.float64),
        ((2, 3, 9, 7), 3, torch.float64),
        ((1, 1, 12, 11, 13), 9, torch.float32),
    ]
    for options in (*OPTIONS[::-1], *HALF_FLOORED)
]
FORMULA_CASES.insert(1, (HALF_FLOORED[1], (1, 1, 6, 8, 7), 3, torch.float32))


@pytest.mark.parametrize(("options", "shape", "kernel_size", "dtype"), quick(FORMULA_CASES, 2))
def test_every_formula_is_the_reference_with_both_gradients(options, shape, kernel_size, dtype):
    assert_agrees_with_reference("triton", options, shape, kernel_size, dtype, DEVICE)


WINDOW_CASES = [(k, (1, 2, 15, 17)) for k in (9, 1, 3, 5, 7, 11, 13, 15)]
WINDOW_CASES += [(k, (1, 1, 15, 16, 17)) for k in in_parts([3, 5, 7, 1, 11, 13, 15, 9], 3)]


@pytest.mark.parametrize(("kernel_size", "shape"), quick(WINDOW_CASES, 1))
def test_every_odd_window_gives_value_and_gradients_of_short_sums(kernel_size, shape):
    images = pair(*shape)
    found = []
    for backend in ("triton", "separable"):
        value = lncc_mean(*images, kernel_size, backend=backend)
        found.append((value, *torch.autograd.grad(value, images)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


SEAMS = [(3, (1, 1, 8, 4, 5), 2), (5, (1, 1, 11, 5, 5), 3), (5, (1, 2, 11, 9), 3), (3, (2, 2, 4, 4, 5), 3)]


@pytest.mark.parametrize(("kernel_size", "shape", "count"), quick(SEAMS, 1))
def test_tiles_and_slabs_of_any_size_join_without_a_seam(kernel_size, shape, count, launch, monkeypatch):
    images = pair(*shape)
    plane = 5 * 8 * shape[3] * (shape[4] if len(shape) == 5 else 1)
    found = []
    for lanes, rows, planes in ((128, 64, 100), (16, 3, 7), (32, 2, 10))[:count]:
        monkeypatch.setattr(launch, "LANES", lanes)
        monkeypatch.setattr(launch, "ROWS", rows)
        monkeypatch.setattr(launch, "SCRATCH_BYTES", planes * plane)
        mean = lncc_mean(*images, kernel_size, backend="triton")
        found.append((mean, *torch.autograd.grad(mean, images)))
    for result in found[1:]:
        torch.testing.assert_close(result, found[0], rtol=1e-12, atol=1e-14)


@slow
def test_map_and_its_gradient_have_no_seams(launch, monkeypatch):
    images = pair(1, 1, 9, 5, 6)
    whole = results(*images, 3, "triton")
    monkeypatch.setattr(launch, "LANES", 16)
    monkeypatch.setattr(launch, "ROWS", 2)
    monkeypatch.setattr(launch, "SCRATCH_BYTES", 1)
    torch.testing.assert_close(results(*images, 3, "triton"), whole, rtol=1e-12, atol=1e-14)


FINITE_CASES = [(o, s, f) for s in ((2, 1, 5, 4), (1, 2, 4, 3, 5)) for f in (lncc_mean, lncc) for o in OPTIONS[::2]]


@pytest.mark.parametrize(("options", "shape", "function"), quick(FINITE_CASES, 1))
def test_gradient_is_the_finite_difference(options, shape, function):
    options = options | {"eps": 1e-2, "backend": "triton"}
    assert torch.autograd.gradcheck(lambda f, w: function(f, w, 3, **options), pair(*shape), fast_mode=True)


@slow
def test_floored_variance_is_constant_for_the_gradient():
    options = {"eps": 0.6, "eps_mode": "floor", "backend": "triton"}
    assert torch.autograd.gradcheck(lambda f, w: lncc(f, w, 3, **options), pair(1, 1, 5, 4), fast_mode=True)


@pytest.mark.parametrize(("function", "which"), quick([(f, k) for f in (lncc_mean, lncc) for k in (0, 1)], 1))
def test_gradient_by_one_image_alone_is_that_of_both(function, which):
    images = pair(1, 2, 6, 7, 5)
    both = torch.autograd.grad(function(*images, 3, backend="triton").sum(), images)[which]
    alone = [image.detach() for image in images]
    alone[which].requires_grad_()
    gradient = torch.autograd.grad(function(*alone, 3, backend="triton").sum(), alone[which])[0]
    torch.testing.assert_close(gradient, both, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("function",), quick([lncc, lncc_mean], 0))
def test_second_derivative_is_refused(function):
    fixed, warped = pair(1, 1, 6, 7, 5)
    (gradient,) = torch.autograd.grad(function(fixed, warped, 3, backend="triton").sum(), warped, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (fixed.sum() + gradient.square().sum()).backward()


@pytest.mark.parametrize(("dtype",), quick([torch.float16, torch.bfloat16], 1))
def test_half_images_have_float32_statistics_and_half_gradients(dtype):
    images = [image.detach().to(dtype).requires_grad_() for image in pair(1, 1, 9, 9, 9)]
    with torch.autocast(DEVICE, dtype):
        value = lncc(*images, 5, backend="triton")
    assert value.dtype == torch.float32
    expected = oracle(*(image.cpu() for image in images), 5)
    torch.testing.assert_close(value.detach().cpu().double(), expected, rtol=0, atol=1e-5)
    gradient = torch.autograd.grad(value.mean(), images[1])[0]
    assert gradient.dtype == dtype
    expected = oracle_gradient(*(image.cpu() for image in images), 5)
    torch.testing.assert_close(gradient.cpu().double(), expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max()))


@pytest.mark.parametrize(("kernel_size",), quick([3, 5], 0))
def test_strides_do_not_matter(kernel_size):
    images = pair(2, 1, 5, 6, 7)
    views = [i.detach().permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0).requires_grad_() for i in images]
    assert not views[0].is_contiguous()
    found, expected = (results(*of, kernel_size, "triton") for of in (views, images))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@slow
def test_expanded_upstream_gradient_is_read_right():
    fixed, warped = pair(1, 2, 6, 7, 5)
    (mean_of_map,) = torch.autograd.grad(lncc(fixed, warped, 3, backend="triton").mean(), warped)
    (fused,) = torch.autograd.grad(lncc_mean(fixed, warped, 3, backend="triton"), warped)
    torch.testing.assert_close(mean_of_map, fused, rtol=1e-12, atol=1e-16)


@slow
def test_ordinary_images_stay_in_float32(sums_in):
    images = [image.detach() for image in pair(1, 2, 12, 12, 12, dtype=torch.float32)]
    lncc(*images, 9, backend="triton")
    assert sums_in == [(torch.float32, 2)]


def test_only_the_volumes_that_need_it_are_done_again_in_float64(sums_in):
    fixed, warped = pair(3, 1, 9, 9, 9, dtype=torch.float32)
    offset = torch.tensor([0.0, 1000.0, 0.0], device=DEVICE).view(3, 1, 1, 1, 1)
    value = lncc(fixed + offset, warped, 5, backend="triton").detach()
    assert sums_in == [(torch.float32, 3), (torch.float64, 1)]
    expected = oracle((fixed + offset).cpu(), warped.cpu(), 5)
    torch.testing.assert_close(value.cpu().double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("name",), quick(HARD[1:], 1))
def test_hard_images_have_the_map_mean_and_gradient_of_the_oracle(name):
    fixed, warped = (image.to(DEVICE).requires_grad_() for image in hard_pair(name))
    value = lncc(fixed.detach(), warped.detach(), 5, backend="triton").cpu()
    assert value.dtype == torch.float32 and 0 <= float(value.min()) and float(value.max()) <= 1
    expected = oracle(fixed.cpu(), warped.cpu(), 5)
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-3)
    mean = lncc_mean(fixed, warped, 5, backend="triton")
    assert float(mean.detach()) == pytest.approx(float(expected.mean()), abs=1e-4)
    gradient = torch.autograd.grad(mean, warped)[0].cpu().double()
    expected = oracle_gradient(fixed.cpu(), warped.cpu(), 5)
    floor = 1e-9 / (warped.numel() * float(warped.detach().abs().max()))  # 1e-9 of an ordinary gradient at this scale
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-3 * float(expected.abs().max()) + floor)


@pytest.mark.parametrize(("log_offset", "squared"), quick([(k / 2, s) for s in (True, False) for k in range(2, 6)], 0))
def test_float32_stays_right_up_to_where_it_gives_way(log_offset, squared):
    """Offsets of 1 to 100 contrasts straddle the change to float64, where an unsound bound would show."""
    fixed, warped = (image.detach() + 10**log_offset for image in pair(1, 1, 12, 13, 14, dtype=torch.float32))
    value = lncc(fixed, warped, 5, squared=squared, backend="triton").cpu()
    torch.testing.assert_close(value.double(), oracle(fixed.cpu(), warped.cpu(), 5, squared=squared), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("options", "level"), quick([(o, level) for level in (0.0, 3.3) for o in OPTIONS], 0))
def test_a_flat_background_has_no_gradient_beside_the_head(options, level):
    """Where both images are flat the slopes are the steepest, and cancel."""
    axes = torch.meshgrid(*[torch.arange(14) - 6.5] * 3, indexing="ij")
    head = 1000 * (sum(axis**2 for axis in axes) < 20).double()
    images = [(level + head * (0.5 + image.detach())).float() for image in random_pair(1, 1, 14, 14, 14)]
    gradients = []
    for backend, dtype in (("triton", torch.float32), ("separable", torch.float64)):
        leaves = [image.to(DEVICE, dtype).requires_grad_() for image in images]
        gradients.append(torch.autograd.grad(lncc_mean(*leaves, 3, backend=backend, **options), leaves))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


NOT_NUMBERS = [(p, m, v) for v in (torch.nan, torch.inf) for m in ("product", "floor") for p in ((6, 3, 6), (0, 0, 0))]


@pytest.mark.parametrize(("place", "eps_mode", "value"), quick(NOT_NUMBERS, 1))
def test_what_is_no_number_stays_visible(place, eps_mode, value):
    fixed, warped = (image.detach() for image in pair(1, 1, 7, 7, 7, dtype=torch.float32))
    warped[(0, 0, *place)] = value
    assert lncc_mean(fixed, warped, 3, eps_mode=eps_mode, backend="triton").isnan()
    assert lncc_mean(warped, fixed, 3, eps_mode=eps_mode, backend="triton").isnan()


@pytest.mark.parametrize(("factor", "squared"), quick([(f, s) for f in (31.7, 3.0) for s in (True, False)], 1))
def test_proportional_images_do_not_exceed_one(squared, factor):
    image = 10 * pair(1, 1, 10, 9, 8, dtype=torch.float32)[0].detach()
    assert float(lncc(image, factor * image, 3, squared=squared, backend="triton").max()) <= 1


@pytest.mark.parametrize(("options", "level"), quick([(o, level) for level in (0.3, 0.0, 255.0) for o in OPTIONS], 0))
def test_gradient_of_flat_images_is_finite(options, level):
    images = [torch.full((1, 1, 9, 9, 9), level, device=DEVICE, requires_grad=True) for _ in range(2)]
    gradients = torch.autograd.grad(lncc_mean(*images, 5, backend="triton", **options), images)
    assert all(gradient.isfinite().all() for gradient in gradients)


@slow
def test_backward_twice_gives_the_gradient_twice():
    fixed, warped = pair(1, 1, 6, 7, 5)
    value = lncc_mean(fixed, warped, 3, backend="triton")
    first = torch.autograd.grad(value, warped, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(2 * value, warped)[0], 2 * first)


def kernel_sums(launch, image, side_y, side_x):
    """Sums of an image (D, H, W) over y and x by the kernel that forms them in float32."""
    planes, height, width = image.shape
    fields = image.new_empty(5, *image.shape)
    lanes = launch.LANES
    grid = -(-planes * width // lanes), -(-height // launch.ROWS)
    sides = {"SIDE_Y": side_y, "SIDE_X": side_x, "ROWS": launch.ROWS, "LANES": lanes}
    launch.sum_in_plane[grid](image, image, None, fields, 0, planes, planes, height, width, **sides)
    return fields[0]


@slow
@pytest.mark.parametrize("side", [9, 15])
@pytest.mark.parametrize("kind", ["uniform", "lognormal", "a third"])
def test_sums_round_less_than_the_verdict_allows(side, kind, launch):
    """The march over z sums as that over y does: the same rings, so that a second call stands for it."""
    size = (side + 3, side + 3, 24)
    generator = torch.Generator().manual_seed(0)
    image = {
        "uniform": torch.rand(size, generator=generator),
        "lognormal": torch.exp(8 * torch.randn(size, generator=generator)),
        "a third": torch.full(size, 1 / 3),
    }[kind].to(DEVICE)
    in_plane = kernel_sums(launch, image, side, side)
    found = kernel_sums(launch, in_plane.movedim(0, 1).contiguous(), side, 1).movedim(1, 0).double()
    padded = torch.nn.functional.pad(image.double(), (side // 2,) * 6)
    exact = padded.unfold(0, side, 1).unfold(1, side, 1).unfold(2, side, 1).sum((-3, -2, -1))
    units = (found - exact).abs() / (exact * torch.finfo(torch.float32).eps / 2)
    assert 0.5 < float(units.max()) <= launch.ROUNDING

"""TransMorph's windows, against MONAI's Swin parts where the two agree, and where they do not."""

import pytest
import torch
from monai.networks.nets.swin_unetr import (
    PatchMergingV2,
    SwinTransformerBlock,
    compute_mask,
    get_window_size,
    window_partition,
)
from torch import Tensor, nn
from transmorph_bundle.windows import (
    MERGING_ORDER,
    PatchMerging,
    Stage,
    WindowBlock,
    from_windows,
    shift_mask,
    to_windows,
)

WINDOWS = [(2, 3, 4), (3, 4)]


def test_windows_are_monais_and_go_back():
    for window in WINDOWS:
        size = [2 * n for n in window]
        tokens = torch.randn(2, *size, 5)
        windows = to_windows(tokens, list(window))
        assert torch.equal(windows, window_partition(tokens, window))
        assert torch.equal(from_windows(windows, list(window), size), tokens)


@pytest.mark.parametrize("window", WINDOWS)
def test_mask_of_shifted_windows_is_monais(window):
    size, shift = [3 * n for n in window], [n // 2 for n in window]
    ours = shift_mask(size, list(window), shift, torch.zeros(()))
    assert torch.equal(ours, compute_mask(size, window, shift, torch.device("cpu")))


def both_stages(window: tuple[int, ...]) -> tuple[Stage, nn.ModuleList]:
    """One stage as ours and as MONAI's blocks, with the same random weights."""
    torch.manual_seed(0)
    stage, shift = Stage(8, 2, list(window), [0.0] * 3).eval(), [n // 2 for n in window]
    for parameter in stage.parameters():
        nn.init.normal_(parameter, std=0.5)
    shifts = [shift if i == 1 else [0] * len(window) for i in range(3)]
    blocks = nn.ModuleList(SwinTransformerBlock(8, 2, window, s, qkv_bias=False) for s in shifts)
    weights = {key.removeprefix("blocks.").replace("attention", "attn"): v for key, v in stage.state_dict().items()}
    blocks.load_state_dict(weights)
    return stage, blocks


def through(blocks: nn.ModuleList, tokens: Tensor, window: tuple[int, ...]) -> Tensor:
    size = tokens.shape[1:-1]
    used, shift = get_window_size(size, window, [n // 2 for n in window])
    padded = [-(-n // w) * w for n, w in zip(size, used, strict=True)]
    mask = compute_mask(padded, used, shift, tokens.device)
    for block in blocks:
        tokens = block(tokens, mask)
    return tokens


@pytest.mark.parametrize(("window", "size"), [((2, 3, 4), (5, 7, 9)), ((2, 3, 4), (4, 6, 8)), ((3, 4), (8, 5))])
def test_stage_is_monais_where_the_map_is_larger_than_the_window(window, size):
    stage, blocks = both_stages(window)
    tokens = torch.randn(2, *size, 8)
    torch.testing.assert_close(stage(tokens), through(blocks, tokens, window), rtol=1e-4, atol=1e-4)


def test_stage_is_not_monais_where_the_map_is_not():
    """MONAI shrinks the window along such an axis; the golden field of the whole network says who is right."""
    window = (2, 3, 4)
    stage, blocks = both_stages(window)
    tokens = torch.randn(2, 5, 7, 3, 8)
    assert not torch.allclose(stage(tokens), through(blocks, tokens, window), atol=0.1)


@pytest.mark.parametrize(("dims", "order"), [(2, range(4)), (3, MERGING_ORDER[3])])
def test_merging_is_monais_but_for_the_order_of_a_volumes_neighbors(dims, order):
    ours, theirs = PatchMerging(3, dims), PatchMergingV2(3, spatial_dims=dims)
    columns = torch.tensor(order)[:, None] * 3 + torch.arange(3)
    with torch.no_grad():
        theirs.reduction.weight[:, columns.flatten()] = ours.reduction.weight
    tokens = torch.randn(2, *(4, 6, 2)[:dims], 3)
    torch.testing.assert_close(ours(tokens), theirs(tokens))


def test_merging_joins_the_neighbors_in_transmorphs_order():
    """By parity of (z, y, x), as published."""
    tokens = torch.arange(8.0).view(1, 2, 2, 2, 1)  # the value is 4 z + 2 y + x
    neighbors = to_windows(tokens, [2, 2, 2])[0, MERGING_ORDER[3], 0]
    published = ["000", "100", "010", "001", "110", "011", "101", "111"]
    assert [f"{int(value):03b}" for value in neighbors] == published


def test_training_leaves_whole_branches_of_samples_out():
    block, branch = WindowBlock(4, 1, [2, 2, 2], [0, 0, 0], drop_path=0.25), torch.ones(4000, 2, 1, 1, 4)
    torch.manual_seed(0)
    dropped = block.train().drop(branch)
    assert torch.equal(dropped, dropped[:, :1, :, :, :1].expand_as(dropped))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float((dropped[:, 0, 0, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert block.eval().drop(branch) is branch

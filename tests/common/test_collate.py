import torch

from common.collate import collate_pairs


def test_only_landmarks_are_padded_and_with_nan():
    items = [{"fixed": torch.zeros(1, 2, 2), "fixed_keypoints": torch.ones(k, 2)} for k in (1, 3)]
    batch = collate_pairs(items)
    assert batch["fixed"].shape == (2, 1, 2, 2) and batch["fixed_keypoints"].shape == (2, 3, 2)
    assert batch["fixed_keypoints"].isnan().all(dim=-1).tolist() == [[False, True, True], [False, False, False]]
    assert items[0]["fixed_keypoints"].shape == (1, 2)


def test_a_batch_without_landmarks_is_monais():
    assert collate_pairs([{"fixed": torch.zeros(1, 2)}, {"fixed": torch.ones(1, 2)}])["fixed"].shape == (2, 1, 2)

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import (
    Compose,
    LoadImaged,
    MapTransform,
    Orientationd,
    RandFlipd,
    RandShiftIntensityd,
    SpatialPadd,
)

from common.data import PairDataset, smallest
from common.errors import RegInputError

KEYS = ["image", "label"]


class Count(MapTransform):
    """Passes its item on and counts how often."""

    def __init__(self):
        super().__init__("image")
        self.calls = 0

    def __call__(self, data):
        self.calls += 1
        return dict(data)


def numbers(count, **rest):
    """Subjects whose image is their own number."""
    return [{"image": torch.full((1, 2, 3), float(k)), **rest} for k in range(count)]


def drawn(dataset):
    """(fixed, moving) subject numbers of every item."""
    return [tuple(int(item[role].flatten()[0]) for role in ("fixed", "moving")) for item in dataset]


def same(item):
    return item


@pytest.fixture
def files(tmp_path):
    """Three subjects on disk, 6 x 7 x 8 in RAS, and their landmarks."""
    rng, items = np.random.default_rng(0), []
    affine = np.array([[2.0, 0, 0, -5], [0, 1, 0, 3], [0, 0, 1.5, 9], [0, 0, 0, 1]])
    for k in range(3):
        item = {key: str(tmp_path / f"{key}_{k}.nii.gz") for key in KEYS}
        nib.save(nib.Nifti1Image(rng.random((6, 7, 8), dtype=np.float32), affine), item["image"])
        nib.save(nib.Nifti1Image(rng.integers(0, 300, (6, 7, 8)).astype(np.int16), affine), item["label"])
        item["keypoints"] = str(tmp_path / f"keypoints_{k}.csv")
        np.savetxt(item["keypoints"], [[1, 2, 3], [5, 0, 7]], delimiter=",")
        items.append(item)
    return items


def load(*more):
    return Compose([LoadImaged(KEYS, ensure_channel_first=True, allow_missing_keys=True), *more])


def test_all_has_every_ordered_pair_once():
    pairs = drawn(PairDataset(numbers(4), same, "all"))
    assert sorted(pairs) == [(i, j) for i in range(4) for j in range(4) if i != j]


def test_consecutive_has_the_next_subject_as_moving():
    assert drawn(PairDataset(numbers(4), same, "consecutive")) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("atlas, others", [(0, [1, 2, 3]), (2, [0, 1, 3])])
def test_atlas_is_the_moving_image_of_all_others(atlas, others):
    assert drawn(PairDataset(numbers(4), same, "atlas", atlas=atlas)) == [(k, atlas) for k in others]


def test_given_pairs_stay_as_they_are():
    subjects = numbers(3)
    pairs = [{"fixed": subjects[2]["image"], "moving": subjects[0]["image"], "initial": [[1]]}]
    dataset = PairDataset(pairs, same, "given")
    assert drawn(dataset) == [(2, 0)] and dataset[0]["initial"] == [[1]]


def test_random_never_pairs_a_subject_with_itself_and_draws_all_others():
    pairs = drawn(PairDataset(numbers(3), same, "random", length=400))
    counts = {pair: pairs.count(pair) for pair in set(pairs)}
    assert set(counts) == {(i, j) for i in range(3) for j in range(3) if i != j}
    assert min(counts.values()) > 400 / 6 - 4 * 7.5  # four standard deviations of a binomial draw


def test_random_depends_on_seed_and_epoch_only():
    dataset, other = (PairDataset(numbers(6), same, "random", length=20, seed=seed) for seed in (0, 1))
    first = drawn(dataset)
    assert drawn(dataset) == first != drawn(other)
    dataset.set_epoch(1)
    assert drawn(dataset) != first
    dataset.set_epoch(0)
    assert [drawn([dataset[k]])[0] for k in reversed(range(20))] == first[::-1]


def test_workers_that_outlive_an_epoch_draw_what_the_main_process_draws():
    """Persistent workers hold a copy of the dataset: set_epoch reaches it, and random transforms are seeded by item."""
    flip = RandFlipd(["fixed", "moving"], prob=0.5, spatial_axis=1)
    data = [{"image": k + torch.arange(6.0).reshape(1, 2, 3) / 10} for k in range(5)]
    expected, found = [], []
    dataset = PairDataset(data, same, "random", flip, length=8)
    loader = DataLoader(dataset, batch_size=1, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        expected += [item["fixed"] for item in dataset]
        found += [batch["fixed"][0] for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert len({round(float(item[0, 0, 0] % 1), 3) for item in found}) == 2  # both flipped and not


def test_pair_transform_sees_both_images():
    item = PairDataset(numbers(2), same, "all", lambda pair: {"sum": pair["fixed"] + 10 * pair["moving"]})[0]
    assert float(item["sum"].mean()) == 10


def test_a_subject_is_decoded_once():
    count = Count()
    dataset = PairDataset(numbers(4), Compose([count]), "all")
    drawn(dataset), drawn(dataset)
    assert count.calls == 4


def test_without_cache_a_subject_is_decoded_each_time():
    count = Count()
    drawn(PairDataset(numbers(3), Compose([count]), "consecutive", cache=False))
    assert count.calls == 4


def test_a_full_cache_takes_no_more():
    count = Count()
    dataset = PairDataset(numbers(4), Compose([count]), "all", cache_limit_mib=2 * 24 / 2**20)  # two images of 24 bytes
    drawn(dataset), drawn(dataset)
    assert count.calls == 2 + 2 * 2 * 6  # two subjects once, the two others each of the 6 times a pass asks for them


def test_given_pairs_share_decoded_subjects(files):
    count = Count()
    pairs = [{"fixed": files[a]["image"], "moving": files[b]["image"]} for a, b in ((0, 1), (1, 2), (2, 0))]
    list(PairDataset(pairs, load(count), "given"))
    assert count.calls == 3


def test_random_transforms_of_a_subject_are_not_frozen_by_the_cache():
    count = Count()
    dataset = PairDataset(numbers(2), Compose([count, RandShiftIntensityd("image", 0.5, prob=1)]), "consecutive")
    first = dataset[0]["fixed"]
    dataset.set_epoch(1)
    assert count.calls == 2 and not torch.equal(first, dataset[0]["fixed"])
    dataset.set_epoch(0)
    assert torch.equal(first, dataset[0]["fixed"])


def test_changing_an_item_does_not_change_the_cache(files):
    dataset = PairDataset(files, load(), "consecutive")
    expected = dataset[0]["fixed"].clone()
    for item in (dataset[0], dataset[1], dataset[0]):
        for role in ("fixed", "moving"):
            item[role].zero_()
            item[role].meta["mark"] = 1
    again = dataset[0]["fixed"]
    assert torch.equal(again, expected) and "mark" not in again.meta


def test_changing_the_first_item_asked_for_does_not_change_the_cache(files):
    dataset = PairDataset(files, load(), "consecutive")
    first = dataset[0]["fixed"]
    expected = first.clone()
    first.zero_()
    assert torch.equal(dataset[0]["fixed"], expected)


@pytest.mark.parametrize("cache", [True, False])
def test_files_come_out_as_they_went_in(files, cache):
    dataset = PairDataset(files, load(), "all", cache=cache)
    for item in (dataset[0], dataset[0]):
        for role, source in (("fixed", files[0]), ("moving", files[1])):
            np.testing.assert_array_equal(item[role][0].numpy(), nib.load(source["image"]).get_fdata())
            np.testing.assert_array_equal(item[f"{role}_label"][0].numpy(), nib.load(source["label"]).get_fdata())
            assert item[f"{role}_label"].dtype == torch.float32


def test_each_image_keeps_its_own_meta(files):
    item = PairDataset(files, load(), "consecutive")[1]
    assert item["fixed"].meta["filename_or_obj"] == files[1]["image"]
    assert item["moving"].meta["filename_or_obj"] == files[2]["image"]


def test_items_of_monai_label_work_unchanged(files):
    data = [{"image": item["image"], "label": item["label"]} for item in files]
    batch = next(iter(DataLoader(PairDataset(data, load(), "random"), batch_size=3)))
    assert batch["fixed"].shape == batch["moving_label"].shape == (3, 1, 6, 7, 8)


def test_keypoints_follow_their_image(files):
    """Flipped by Orientation, then moved by the padding: the voxel under each landmark keeps its value."""
    transform = load(Orientationd(KEYS, "LIA", labels=None), SpatialPadd(KEYS, (12, 12, 12)))
    item = PairDataset(files, transform, "consecutive")[0]
    original = nib.load(files[0]["image"]).get_fdata()
    values = [float(item["fixed"][(0, *point.round().int().tolist())]) for point in item["fixed_keypoints"]]
    np.testing.assert_allclose(values, [original[1, 2, 3], original[5, 0, 7]], rtol=1e-6)


def test_unequal_numbers_of_keypoints_are_refused(files):
    np.savetxt(files[1]["keypoints"], [[1, 2, 3]], delimiter=",")
    with pytest.raises(RegInputError, match="2 fixed and 1 moving"):
        PairDataset(files, load(), "consecutive")[0]


@pytest.mark.parametrize(
    "high, dtype", [(255, torch.uint8), (256, torch.int16), (40_000, torch.int32), (2**40, torch.float64)]
)
def test_label_cache_takes_the_smallest_type_that_holds_every_value(high, dtype):
    label = torch.tensor([0.0, high], dtype=torch.float64)
    assert smallest(label).dtype == dtype and torch.equal(smallest(label).double(), label)


def test_label_cache_keeps_fractions():
    assert torch.equal(smallest(torch.tensor([0.5, 1])), torch.tensor([0.5, 1]))


def test_index_past_the_end_ends_an_iteration():
    with pytest.raises(IndexError):
        PairDataset(numbers(2), same, "all")[2]


@pytest.mark.parametrize(
    "data, options, message",
    [
        (numbers(1), {}, "got 1 items, expected at least 2"),
        ([], {"pairing": "given"}, "got 0 items"),
        (numbers(2), {"pairing": "some"}, "expected one of all, consecutive"),
        (numbers(2), {"pairing": "given"}, "expected fixed and moving"),
        ([{"fixed": 1, "moving": 2}] * 2, {}, "use pairing 'given' for pairs"),
        ([*numbers(2), *numbers(1, label=3)], {}, "expected the same"),
        (numbers(2), {"pairing": "atlas", "atlas": 2}, "atlas is 2"),
        (numbers(2), {"length": 5}, "'random' only"),
        (numbers(2), {"pairing": "random", "length": 0}, "1 or more"),
    ],
)
def test_data_that_cannot_be_paired_are_refused(data, options, message):
    with pytest.raises(RegInputError, match=message):
        PairDataset(data, same, **options)


def test_meta_tensors_stay_meta_tensors(files):
    assert isinstance(PairDataset(files, load(), "all")[0]["fixed"], MetaTensor)

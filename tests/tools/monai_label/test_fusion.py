import numpy as np

from tools.monai_label.fusion import vote


def maps(*rows: list[int]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.uint8) for row in rows]


def test_the_label_of_most_maps_wins_at_each_voxel():
    fused = vote(maps([1, 1, 0, 3], [1, 2, 0, 3], [2, 2, 5, 3]))
    assert fused.tolist() == [1, 2, 0, 3]
    assert fused.dtype == np.uint8


def test_of_equal_votes_the_earlier_map_wins():
    assert vote(maps([7, 0], [4, 9])).tolist() == [7, 0]
    assert vote(maps([3], [1], [1], [3])).tolist() == [3]


def test_a_majority_beats_the_most_trusted_map_however_many_there_are():
    assert vote(maps([1], *[[2]] * 2)).tolist() == [2]
    assert vote(maps(*[[1]] * 9, *[[2]] * 10)).tolist() == [2]


def test_one_map_stays_as_it_is():
    label = np.random.default_rng(0).integers(0, 300, (4, 5, 6)).astype(np.int16)
    np.testing.assert_array_equal(vote([label]), label)


def test_agrees_with_counting_voxel_by_voxel():
    labels = [np.random.default_rng(seed).integers(0, 4, (5, 6, 7)) for seed in range(5)]

    def count(votes: list[int]) -> int:
        return max(votes, key=lambda value: (votes.count(value), -votes.index(value)))

    expected = [count([int(label[at]) for label in labels]) for at in np.ndindex(5, 6, 7)]
    assert vote(labels).ravel().tolist() == expected

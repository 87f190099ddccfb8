"""Packing, on lengths written by hand and on random ones."""

import numpy as np
import pytest

from speccascade_jax.data import bucketing

SHAPES = (
  bucketing.Shape(4, 4),
  bucketing.Shape(12, 4),
  bucketing.Shape(10, 10),
  bucketing.Shape(16, 16),
)


def test_leftovers_move_to_the_next_shape_that_holds_them():
  sizes = np.array([[4, 4], [2, 2], [3, 3], [12, 1], [5, 5], [16, 2]])
  groups = bucketing.pack(np.arange(6), sizes, SHAPES, rows=(2, 2, 2, 2))
  # (4, 4): 0 and 1; 2 moves to (12, 4), where it fills the batch of 3;
  # 4 alone in (10, 10) moves to (16, 16), where it meets 5.
  made = [(group.shape, group.members.tolist()) for group in groups]
  assert made == [
    (SHAPES[0], [0, 1]),
    (SHAPES[1], [2, 3]),
    (SHAPES[3], [4, 5]),
  ]


def test_order_is_kept_within_a_shape():
  sizes = np.full((5, 2), 3)
  order = np.array([3, 1, 4, 0, 2])
  groups = bucketing.pack(order, sizes, SHAPES[:1], rows=(2,))
  assert [g.members.tolist() for g in groups] == [[3, 1], [4, 0], [2]]
  assert [g.rows for g in groups] == [2, 2, 2]


@pytest.mark.parametrize('seed', range(5))
def test_every_example_is_in_one_batch_that_holds_it(seed):
  random = np.random.default_rng(seed)
  sizes = random.integers(1, 17, (200, 2))
  rows = tuple(random.integers(1, 9, len(SHAPES)).tolist())
  order = random.permutation(200)[:150]
  groups = bucketing.pack(order, sizes, SHAPES, rows)
  members = np.concatenate([group.members for group in groups])
  assert sorted(members) == sorted(order)
  for group in groups:
    assert group.shape.holds(sizes[group.members]).all()
    assert len(group.members) <= group.rows
    if group.shape != SHAPES[-1]:
      assert len(group.members) == group.rows


def test_fitting_cuts_and_sorts():
  made = bucketing.fitting(SHAPES, bucketing.Shape(11, 8))
  assert made == ((4, 4), (11, 4), (10, 8), (11, 8))
  assert [shape.cost for shape in made] == sorted(s.cost for s in made)
  assert bucketing.fitting((), bucketing.Shape(3, 2)) == ((3, 2),)


def test_rows():
  shape = bucketing.Shape(20, 12)
  assert bucketing.rows_of(shape, 1000, 1) == 31
  assert bucketing.rows_of(shape, 1000, 8) == 24
  assert bucketing.rows_of(shape, 10, 8) == 8


def test_stream_is_shuffled_passes_and_starts_anywhere():
  whole = bucketing.stream(10, 0, 35, [7])
  for start in (0, 10, 20):
    assert sorted(whole[start : start + 10]) == list(range(10))
  assert whole[:10].tolist() != whole[10:20].tolist()
  for start, count in ((3, 4), (8, 20), (29, 6), (30, 5)):
    part = bucketing.stream(10, start, count, [7])
    np.testing.assert_array_equal(part, whole[start : start + count])
  assert bucketing.stream(10, 0, 10, [8]).tolist() != whole[:10].tolist()

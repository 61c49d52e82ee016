"""Tables of reflections and of the angles between them, for each crystal system."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_grains import CRYSTALS, lattice_of

from kernels.errors import KernelError
from kernels.hedm.farfield.lattice import BINS, Lattice, angle_table


@pytest.mark.parametrize("system", CRYSTALS)
def test_every_pair_of_reflections_is_equivalent_to_one_entry(system):
    """Of all pairs (first of the ring, second not along it) each is some rotation of one entry, and none of two."""
    lattice = lattice_of(system)
    order = lattice.seed_rings(2e-3)
    ring, partners = order[0], lattice.partner_rings(order[0], order, 6)
    first = np.flatnonzero(lattice.ring == ring)
    second = np.flatnonzero(np.isin(lattice.ring, partners))
    wanted = set()
    for a in first:
        for b in second:
            if abs(lattice.g0[a] @ lattice.g0[b]) <= np.cos(np.radians(8)) * lattice.length[a] * lattice.length[b]:
                wanted.add((int(a), int(b)))
    made: list[tuple[int, int]] = []
    for head in lattice.heads(ring):
        cosine, reflection = lattice.angles(head, partners)
        assert (np.diff(cosine) >= 0).all()
        for one in reflection:
            images = {
                tuple(int(np.abs(lattice.g0 - turn @ lattice.g0[k]).max(1).argmin()) for k in (head, one))
                for turn in lattice.rotations
            }
            made += images
    assert len(made) == len(set(made))
    assert set(made) == wanted


def test_the_bins_of_a_cubic_table():
    lattice = lattice_of("cubic")
    table = angle_table(lattice, 1, [1], 0.003)  # {200} with {200}: one right angle
    assert len(table.cosine) == 1
    assert abs(table.cosine[0]) < 1e-12
    used = np.flatnonzero(table.last[0] > table.first[0])
    assert {BINS // 2 - 1, BINS // 2} <= set(used) <= set(range(BINS // 2 - 5, BINS // 2 + 5))


def test_a_reflection_and_its_mate_are_two_families_where_no_rotation_joins_them():
    assert len(lattice_of("triclinic").heads(0)) == 2
    assert len(lattice_of("cubic").heads(0)) == 1


def test_shells_join_rings_that_run_into_each_other():
    lattice = lattice_of("cubic")
    near = np.full(len(lattice.ring_length), 1e-4)
    shell, bounds = lattice.shells(near)
    assert len(set(shell)) == len(lattice.ring_length)
    assert np.allclose(bounds[shell, 0], lattice.ring_length - 1e-4)
    gap = lattice.ring_length[4] - lattice.ring_length[3]  # the smallest: 311 and 222
    shell, bounds = lattice.shells(near + 0.51 * gap)
    assert shell.tolist() == [0, 1, 2, 3, 3]
    assert (bounds[1:, 0] > bounds[:-1, 1]).all()


def test_both_of_a_friedel_pair_are_needed():
    lattice = lattice_of("cubic")
    with pytest.raises(KernelError, match="-h -k -l"):
        Lattice(lattice.b0, lattice.hkl[1:], lattice.ring[1:], lattice.rotations)

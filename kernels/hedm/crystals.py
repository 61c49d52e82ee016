"""Crystals: lattice, space group, the matrix of reciprocal space, symmetry and structure factors.

Cartesian axes of a crystal, here and everywhere in `kernels.hedm`: **x along a, z along c***, lengths in Å, no 2 pi. It
is HEXRD's choice; MIDAS, ImageD11 and xfab have x along a* and z along c (`busing_levy_rotation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import gemmi
import numpy as np
from numpy.typing import NDArray

from kernels.errors import Exit, KernelError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

HC_EV_A = 12398.419843320026  # energy in eV times wavelength in Å
_FITS = 1e-6  # how far, relatively, a lattice may be off the symmetry of its space group


@dataclass(frozen=True)
class Atom:
    """One site of the asymmetric unit: an element, fractional coordinates, occupancy, isotropic displacement."""

    element: str
    x: float
    y: float
    z: float
    occupancy: float = 1.0
    u_iso_A2: float = 0.0


@dataclass(frozen=True)
class Crystal:
    """A lattice (Å, degrees) with its space group, and with its atoms where they are known.

    `space_group` is a number, which means the standard setting, or a Hermann-Mauguin symbol of any setting (`"P 1 1
    21/n"`, `"R -3 c:R"`, `"Fm-3m"`). Where a rhombohedral group does not say which axes it means, the lattice does.
    Kept is the whole symbol of the setting.

    Raises
    ------
    KernelError
        The space group is unknown, or the lattice is none, or has not the symmetry of the space group.
    """

    a_A: float
    b_A: float
    c_A: float
    alpha_deg: float
    beta_deg: float
    gamma_deg: float
    space_group: int | str
    atoms: tuple[Atom, ...] = ()

    def __post_init__(self) -> None:
        given = self._given_metric
        object.__setattr__(self, "space_group", self.name)
        if not _fits(given, self._metric):
            raise KernelError(_misfit(self, given), Exit.BAD_INPUT)

    @classmethod
    def of(cls, lattice: Sequence[float] | Floats, space_group: int | str) -> Crystal:
        """From the six lattice parameters in a row (Å, degrees)."""
        if len(lattice) != 6:
            raise KernelError(f"A lattice has six parameters, not {len(lattice)}.", Exit.BAD_INPUT)
        a, b, c, alpha, beta, gamma = (float(value) for value in lattice)
        return cls(a, b, c, alpha, beta, gamma, space_group)

    @classmethod
    def from_cif(cls, path: str | Path) -> Crystal:
        """The first crystal in a CIF, with its atoms.

        Raises
        ------
        KernelError
            The file cannot be read, or has no lattice or no space group that is known.
        """
        try:
            blocks = gemmi.cif.read(str(path))
            found = (gemmi.make_small_structure_from_block(block) for block in blocks)
            small = next((one for one in found if one.cell.is_crystal()), None)
        except (OSError, ValueError, RuntimeError) as error:
            raise KernelError(f"Cannot read the CIF {str(path)!r}: {error}.", Exit.BAD_INPUT) from error
        if small is None:
            raise KernelError(f"The CIF {str(path)!r} has no lattice (_cell_length_a and so on).", Exit.BAD_INPUT)
        small.determine_and_set_spacegroup("S.H2N")
        if small.spacegroup is None:
            raise KernelError(f"The CIF {str(path)!r} has no space group that is known.", Exit.BAD_INPUT)
        sites = [site for site in small.sites if site.element.atomic_number > 0]
        atoms = tuple(
            Atom(site.element.name, site.fract.x, site.fract.y, site.fract.z, site.occ, _u_iso(site, small.cell))
            for site in sites
        )
        return replace(cls.of(small.cell.parameters, small.spacegroup.xhm()), atoms=atoms)

    @property
    def lattice(self) -> tuple[float, float, float, float, float, float]:
        """The six parameters (Å, degrees), as they were given."""
        return self.a_A, self.b_A, self.c_A, self.alpha_deg, self.beta_deg, self.gamma_deg

    @cached_property
    def group(self) -> gemmi.SpaceGroup:
        """The space group in its setting."""
        return _group(self.space_group, self.alpha_deg, self.gamma_deg)

    @property
    def name(self) -> str:
        """The symbol of the space group in its setting, which `Crystal` understands."""
        return str(self.group.xhm())

    @property
    def laue_class(self) -> str:
        """One of the eleven: -1, 2/m, mmm, 4/m, 4/mmm, -3, -3m, 6/m, 6/mmm, m-3, m-3m."""
        return str(self.group.laue_str())

    @cached_property
    def a0(self) -> Floats:
        """(3, 3): the columns are a, b and c in the crystal's cartesian axes, in Å. Upper triangular."""
        return _kept(_axes(self._metric))

    @cached_property
    def b0(self) -> Floats:
        """(3, 3): the columns are a*, b* and c* in 1/Å; `b0 @ hkl` is the reciprocal vector. Lower triangular."""
        return _kept(np.asarray(np.linalg.inv(self.a0).T, np.float64))

    @property
    def volume_A3(self) -> float:
        return float(np.prod(np.diagonal(self.a0)))

    @cached_property
    def rotations(self) -> Floats:
        """(n, 3, 3): the proper rotations of the Laue class in the crystal's cartesian axes, the identity first.

        An orientation `U` and each `U @ rotation` cannot be told apart by diffraction.
        """
        return _kept(self.a0 @ self.fractional_rotations @ np.linalg.inv(self.a0))

    @cached_property
    def fractional_rotations(self) -> Ints:
        """(n, 3, 3): the same rotations `W` of fractional coordinates; `hkl @ W` are the equivalents of `hkl`."""
        return _kept(_proper(self.group))

    @property
    def busing_levy_rotation(self) -> Floats:
        """(3, 3): takes our cartesian axes to those with x along a* and z along c.

        An orientation of MIDAS (or of ImageD11, xfab) is `U @ rotation.T`, since `U_midas @ B_midas = U @ b0`
        (Busing and Levy, Acta Cryst. 22, 457, 1967).
        """
        x = self.b0[:, 0] / np.linalg.norm(self.b0[:, 0])
        z = self.a0[:, 2] / np.linalg.norm(self.a0[:, 2])
        return np.stack([x, np.cross(z, x), z])

    def absent(self, hkl: Ints) -> NDArray[np.bool_]:
        """(n,): which of `hkl` (n, 3) are extinct by centring, screw axes or glide planes."""
        found = self.group.operations().systematic_absences(np.ascontiguousarray(hkl, np.int32))
        return np.asarray(found, np.bool_)

    def structure_factors(self, hkl: Ints, wavelength_A: float) -> NDArray[np.complex128]:
        """(n,): structure factors of `hkl` (n, 3), in electrons per cell, from X-ray form factors (International Tables
        C, 6.1.1.4) and the real part of dispersion (Cromer and Liberman), both as gemmi has them.

        Raises
        ------
        KernelError
            The atoms are not known.
        """
        if not self.atoms:
            raise KernelError("The atoms of the crystal are not known; structure factors need a CIF.", Exit.BAD_INPUT)
        small = self._structure()
        calculator = gemmi.StructureFactorCalculatorX(small.cell)
        calculator.addends.add_cl_fprime(HC_EV_A / wavelength_A)
        return np.array([calculator.calculate_sf_from_small_structure(small, list(one)) for one in hkl.tolist()])

    def _structure(self) -> gemmi.SmallStructure:
        small = gemmi.SmallStructure()
        small.cell = gemmi.UnitCell(*self.lattice)
        small.spacegroup_hall = self.group.hall
        small.determine_and_set_spacegroup("H")
        for atom in self.atoms:
            site = gemmi.SmallStructure.Site()
            site.label = site.type_symbol = atom.element
            site.element = gemmi.Element(atom.element)
            site.fract = gemmi.Fractional(atom.x, atom.y, atom.z)
            site.occ, site.u_iso = atom.occupancy, atom.u_iso_A2
            small.add_site(site)
        small.setup_cell_images()
        small.change_occupancies_to_crystallographic()
        return small

    @cached_property
    def _given_metric(self) -> Floats:
        """(3, 3): the scalar products of the axes as they were given."""
        lengths, angles = np.array(self.lattice[:3], float), np.array(self.lattice[3:], float)
        if not (np.isfinite(lengths) & np.isfinite(angles)).all() or min(lengths) <= 0:
            raise KernelError(f"The lattice {self.lattice} has a length that is not above 0.", Exit.BAD_INPUT)
        alpha, beta, gamma = np.cos(np.radians(angles))
        cosines = np.array([[1, gamma, beta], [gamma, 1, alpha], [beta, alpha, 1]])
        if np.abs([alpha, beta, gamma]).max() >= 1 or np.linalg.det(cosines) <= 1e-12:
            raise KernelError(f"No lattice has the angles {', '.join(f'{a:g}°' for a in angles)}.", Exit.BAD_INPUT)
        return np.asarray(np.outer(lengths, lengths) * cosines)

    @cached_property
    def _metric(self) -> Floats:
        """(3, 3): the nearest that has the symmetry of the space group exactly, so that `rotations` are rotations."""
        turns = self.fractional_rotations
        return np.asarray((turns.transpose(0, 2, 1) @ self._given_metric @ turns).mean(0))


def _group(wanted: int | str, alpha_deg: float, gamma_deg: float) -> gemmi.SpaceGroup:
    text = str(wanted).strip()
    if text.isdecimal():
        if not 1 <= int(text) <= 230:
            raise KernelError(f"There is no space group {text}; they are numbered from 1 to 230.", Exit.BAD_INPUT)
        text = gemmi.find_spacegroup_by_number(int(text)).hm
    found = gemmi.find_spacegroup_by_name(text, alpha_deg, gamma_deg)
    if found is None:
        sentence = f"There is no space group {text!r}. Give its number or its symbol, such as 225 or 'F m -3 m'."
        raise KernelError(sentence, Exit.BAD_INPUT)
    return found


def _proper(group: gemmi.SpaceGroup) -> Ints:
    """The rotations of all operations, each made proper, each once; the identity first."""
    parts = np.array([operation.rot for operation in group.operations().sym_ops]) // gemmi.Op.DEN
    signs = np.rint(np.linalg.det(parts)).astype(np.int64)
    every = {tuple(part.ravel().tolist()) for part in parts * signs[:, None, None]}
    rest = sorted(every - {(1, 0, 0, 0, 1, 0, 0, 0, 1)}, reverse=True)
    return np.array([(1, 0, 0, 0, 1, 0, 0, 0, 1), *rest], np.int64).reshape(-1, 3, 3)


def _fits(given: Floats, symmetric: Floats) -> bool:
    scale = np.sqrt(np.outer(np.diagonal(given), np.diagonal(given)))
    return bool((np.abs(given - symmetric) <= _FITS * scale).all())


def _axes(metric: Floats) -> Floats:
    """The lattice vectors of a metric as columns, a along x and c* along z: an upper triangle."""
    return np.asarray(np.linalg.cholesky(metric).T, np.float64)


def _misfit(crystal: Crystal, given: Floats) -> str:
    group, nearest = crystal.group, lattice_of(_axes(crystal._metric))
    settings = {"trigonal": "; axes can be named, as in 'R -3 c:R' or 'R -3 c:H'", "monoclinic": " and its unique axis"}
    return (
        f"The lattice {_shown(lattice_of(_axes(given)))} does not fit the {group.crystal_system_str()} "
        f"space group {group.xhm()} (number {group.number}); the nearest that does is {_shown(nearest)}. Correct the "
        f"lattice or the space group{settings.get(group.crystal_system_str(), '')}."
    )


def lattice_of(axes: Floats) -> Floats:
    """(…, 6): the lattice parameters (Å, degrees) of axes (…, 3, 3), whose columns are a, b and c in any frame."""
    metric = np.swapaxes(axes, -1, -2) @ axes
    lengths = np.sqrt(np.diagonal(metric, axis1=-2, axis2=-1))
    pairs = [(1, 2), (0, 2), (0, 1)]
    cosines = np.stack([metric[..., i, j] / (lengths[..., i] * lengths[..., j]) for i, j in pairs], -1)
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1, 1)))], -1)


def _shown(lattice: Floats) -> str:
    a, b, c, alpha, beta, gamma = lattice
    return (
        f"a = {a:.6g} Å, b = {b:.6g} Å, c = {c:.6g} Å, alpha = {alpha:.6g}°, beta = {beta:.6g}°, gamma = {gamma:.6g}°"
    )


def _u_iso(site: gemmi.SmallStructure.Site, cell: gemmi.UnitCell) -> float:
    return float(site.u_iso if site.u_iso or not site.aniso.nonzero() else cell.calculate_u_eq(site.aniso))


def _kept(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array, which nobody may change since it is shared."""
    array.flags.writeable = False
    return array

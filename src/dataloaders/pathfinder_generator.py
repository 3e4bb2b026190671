"""Pathfinder and Path-X: two dots, joined by a dashed path among distractors or not; seeded, compiled, drawn in place.

The task is that of Linsley et al. (2018) with the measures Long Range Arena chose for each resolution; the generator is
our own and works in continuous coordinates:

- A path is a chain of joints J_0, J_1, ...; dash k lies on the straight piece from J_k to J_{k+1}, ``gap`` short of
  either end, so two neighbouring dashes point at their common joint. At a joint the path turns by delta with density
  proportional to cos^2(``continuity`` * delta) for |continuity * delta| < pi/2.
- Dashes stay ``padding`` px inside the image, and any two that are not neighbours in a path keep ``clearance`` gaps
  apart.
- A scene has two paths of ``long_dashes`` dashes and up to ``n_distractors`` of ``short_dashes``.
- A positive image has dots on both ends of one long path; a negative one on an end of each.

There are two laws. ``lra`` gives images with the statistics of the public generator at LRA's settings: both paths start
near the middle, ``seed_distance`` apart, dashes come so close that paths cross through gaps, not all distractors find
room, at 32 they are brighter than paths, and every image is scaled to its brightest pixel. That generator | ours, 160 |
400 images at resolution 32, 55 | 200 at 64, 90 | 200 at 128:

=====================================  =============  =============  =============
resolution                             32             64             128
=====================================  =============  =============  =============
median grey of what is not black       133  | 135     97.5 | 97.6    133  | 135
share of such pixels                   .143 | .157    .121 | .118    .060 | .061
distractors                            1.24 | 1.16    2.87 | 3.12    7.76 | 7.83
crossings                              .55  | .59     .58  | .50     .07  | .10
pixels between the dots                13.8 | 13.6    31.9 | 33.6    75.9 | 75.7
=====================================  =============  =============  =============

``apart`` is tidier: paths start anywhere and never cross, and most distractors are there.

No shortcut: every scene can carry both labels. It has an end with two like partners, the other end of its own path and
an end of the other path: their distances to it agree within ``tolerance`` px, their distances from the middle of the
image within twice that (scenes without are drawn again; with ``lra`` the end is where a path starts and its partners
where paths end). Only then does the label decide which partner gets the second dot. Paths, distractors, number and
contrast of dashes have the same law in both classes, and so have the dots up to that tolerance: with ``apart``, a
classifier (gradient boosting, 20,000 scenes) that knows the coordinates of the dots is right in 52 % (resolution 32)
and 53 % (128) of the cases. Told the directions of the dashes under the dots too, it reaches 69 % and 75 %: a path
tends to go on the way it sets out, which is part of the task. Labels are exactly balanced.

Image number i is a pure function of (settings, seed, i). It is not one of LRA's images, so accuracies on generated data
stand beside the published ones but are not the same measurement.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

import numpy as np
from numba import njit

from sdn.errors import UserError

from .streams import below, stream, uniform


@dataclass(frozen=True)
class PathfinderSettings:
    """Measures of a scene, in pixels, for a square image of ``resolution``."""

    resolution: int
    dash: float
    gap_min: float
    gap_max: float
    thickness: float
    radius: float
    continuity: float
    contrast: float
    n_distractors: int
    padding: float
    tolerance: float
    long_dashes: int = 14
    short_dashes: int = 4
    distractor_contrast: float = 0.0
    """0: that of the paths. Where it is not, the brightest pixel of an image is made 255."""
    clearance: float = 2.0
    """How far dashes that are not neighbours keep apart, in gaps."""
    trials: int = 50
    """How often each distractor is tried."""
    start: float = 0.0
    """The first path starts within this distance of the middle along x and y; 0: anywhere."""
    seed_distance: float = 0.0
    """How far from there the second path starts; 0: anywhere."""


# Floats are written as such: the kernels are compiled for one set of types.
_APART = {
    32: PathfinderSettings(32, 2.0, 1.0, 1.0, 0.5, 1.5, 1.0, 0.75, 5, 1.5, 0.75),
    64: PathfinderSettings(64, 3.0, 1.0, 1.0, 1.0, 2.5, 1.8, 0.8, 5, 2.0, 1.0),
    128: PathfinderSettings(128, 5.0, 2.0, 3.0, 1.5, 3.0, 1.8, 0.9, 8, 3.0, 1.5),
}
_LRA = {
    32: PathfinderSettings(
        32, 2.0, 1.0, 1.0, 0.55, 1.5, 1.0, 1.75, 5, 2.0, 0.75, 14, 4, 1.75 / 0.75, 0.85, 1, 2.0, 7.0
    ),
    64: PathfinderSettings(64, 4.8, 1.0, 1.0, 1.0, 2.5, 1.65, 0.71, 5, 2.0, 1.0, 14, 4, 0.71, 0.5, 2, 7.0, 12.0),
    128: PathfinderSettings(128, 5.0, 2.0, 3.0, 1.5, 3.0, 1.6, 0.87, 8, 3.0, 1.5, 14, 4, 0.87, 0.85, 7, 20.0, 20.0),
}
_DISTRACTOR_DASHES = {32: 20, 64: 22, 128: 35}
LAWS = {"lra": _LRA, "apart": _APART}


def settings_for(resolution: int, long_dashes: int = 14, law: str = "apart") -> PathfinderSettings:
    """The measures of a law for this resolution, distractors being a third as long as the paths.

    Raises:
        UserError: there are none.
    """
    if law not in LAWS:
        raise UserError(f"dataset.law is one of {', '.join(LAWS)}, not {law!r}")
    if resolution not in LAWS[law]:
        raise UserError(f"Pathfinder exists at resolutions {sorted(LAWS[law])}, not {resolution}")
    settings = replace(LAWS[law][resolution], long_dashes=long_dashes, short_dashes=long_dashes // 3)
    if law == "lra":
        settings = replace(settings, n_distractors=_DISTRACTOR_DASHES[resolution] // settings.short_dashes)
    return settings


@dataclass(frozen=True)
class Scene:
    """What an image shows.

    Attributes:
        dashes: (n, 4) float64, x and y of both ends of each dash.
        paths: (n,) int64, the path each dash belongs to; 0 and 1 are the long ones.
        dots: (2, 2) float64, x and y of the two dots.
        label: 1 if the dots are joined by a path, else 0.
    """

    dashes: np.ndarray
    paths: np.ndarray
    dots: np.ndarray
    label: int


def labels(seed: int, start: int, stop: int) -> np.ndarray:
    """Labels (stop - start,) uint8 of images start, ..., stop - 1; images 2k and 2k + 1 have one of each."""
    return _labels(seed, start, stop)


def images(settings: PathfinderSettings, seed: int, start: int, stop: int) -> np.ndarray:
    """Images (stop - start, resolution, resolution) uint8."""
    return _images(astuple(settings), seed, start, stop, labels(seed, start, stop))


def scene(settings: PathfinderSettings, seed: int, index: int) -> Scene:
    """What image ``index`` shows."""
    label = int(labels(seed, index, index + 1)[0])
    dashes, paths, dots = _scene(astuple(settings), stream(seed, index), label)
    return Scene(dashes, paths, dots, label)


@njit(cache=True, nogil=True)
def _labels(seed: int, start: int, stop: int) -> np.ndarray:
    out = np.empty(stop - start, np.uint8)
    for i in range(start, stop):
        # Streams of pairs count down from the end, away from those of images.
        coin = below(stream(seed, -1 - i // 2), 2)
        out[i - start] = coin ^ (i & 1)
    return out


@njit(cache=True, nogil=True)
def _images(settings: tuple, seed: int, start: int, stop: int, label: np.ndarray) -> np.ndarray:
    resolution, thickness, radius, contrast = settings[0], settings[4], settings[5], settings[7]
    n_long, distractor_contrast = 2 * settings[11], settings[13]
    out = np.empty((stop - start, resolution, resolution), np.uint8)
    canvas = np.empty((resolution, resolution), np.float32)
    most = min(1.0, thickness) if distractor_contrast > 0.0 else 1.0  # of a pixel that a thin dash can cover
    for i in range(stop - start):
        dashes, _, dots = _scene(settings, stream(seed, start + i), label[i])
        canvas[:] = 0
        for k in range(len(dashes)):
            level = distractor_contrast if k >= n_long and distractor_contrast > 0.0 else contrast
            _stroke(canvas, dashes[k, 0], dashes[k, 1], dashes[k, 2], dashes[k, 3], 0.5 * thickness, level, most)
        for k in range(2):
            _stroke(canvas, dots[k, 0], dots[k, 1], dots[k, 0], dots[k, 1], radius, 1.0, 1.0)
        white = np.float32(255.0) / canvas.max() if distractor_contrast > 0.0 else np.float32(255.0)
        for y in range(resolution):
            for x in range(resolution):
                out[i, y, x] = np.uint8(white * canvas[y, x] + 0.5)
    return out


@njit(cache=True, nogil=True)
def _stroke(
    canvas: np.ndarray, x0: float, y0: float, x1: float, y1: float, half: float, level: float, most: float
) -> None:
    """Brighten the pixels within ``half`` px of a straight piece to ``level`` times ``most``, with an edge one pixel
    soft."""
    n = canvas.shape[0]
    reach = half + 1.0
    for y in range(max(0, int(min(y0, y1) - reach)), min(n, int(max(y0, y1) + reach) + 1)):
        for x in range(max(0, int(min(x0, x1) - reach)), min(n, int(max(x0, x1) + reach) + 1)):
            distance = np.sqrt(_point_to_piece(x + 0.5, y + 0.5, x0, y0, x1, y1))
            covered = level * min(most, max(0.0, half + 0.5 - distance))
            canvas[y, x] = max(canvas[y, x], covered)


@njit(cache=True, nogil=True)
def _point_to_piece(x: float, y: float, x0: float, y0: float, x1: float, y1: float) -> float:
    """Squared distance of a point from a straight piece."""
    dx, dy = x1 - x0, y1 - y0
    square = dx * dx + dy * dy
    t = 0.0
    if square > 0.0:
        t = min(1.0, max(0.0, ((x - x0) * dx + (y - y0) * dy) / square))
    ex, ey = x0 + t * dx - x, y0 + t * dy - y
    return ex * ex + ey * ey


@njit(cache=True, nogil=True)
def _apart(a: np.ndarray, b: np.ndarray, length: float, distance: float) -> bool:
    """Whether two straight pieces (4,) of one ``length`` stay at least ``distance`` apart."""
    square = distance * distance
    # Twice the vector between the middles: far pieces need no closer look.
    mx, my = a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]
    if mx * mx + my * my >= 4.0 * (distance + length) ** 2:
        return True
    if _point_to_piece(a[0], a[1], b[0], b[1], b[2], b[3]) < square:
        return False
    if _point_to_piece(a[2], a[3], b[0], b[1], b[2], b[3]) < square:
        return False
    if _point_to_piece(b[0], b[1], a[0], a[1], a[2], a[3]) < square:
        return False
    if _point_to_piece(b[2], b[3], a[0], a[1], a[2], a[3]) < square:
        return False
    # The nearest points of two pieces include an end of one, unless they cross.
    side_0 = _side(a, b[0], b[1]) * _side(a, b[2], b[3])
    side_1 = _side(b, a[0], a[1]) * _side(b, a[2], a[3])
    return side_0 > 0.0 or side_1 > 0.0


@njit(cache=True, nogil=True)
def _side(piece: np.ndarray, x: float, y: float) -> float:
    return (piece[2] - piece[0]) * (y - piece[1]) - (piece[3] - piece[1]) * (x - piece[0])


@njit(cache=True, nogil=True)
def _turn(state: np.ndarray, continuity: float) -> float:
    """An angle with density proportional to cos^2(continuity * angle), by rejection."""
    while True:
        angle = (uniform(state) - 0.5) * np.pi
        if uniform(state) < np.cos(angle) ** 2:
            return angle / continuity


@njit(cache=True, nogil=True)
def _grow(
    state: np.ndarray,
    dashes: np.ndarray,
    n: int,
    count: int,
    settings: tuple,
    gap: float,
    clearance: float,
    start: int,
) -> bool:
    """Try to put a path of ``count`` dashes into ``dashes[n : n + count]``, clear of the ``n`` already there.

    ``start``: 0 anywhere, 1 near the middle, 2 at the seed distance from the beginning of the first path.
    """
    resolution, dash, continuity, padding = settings[0], settings[1], settings[6], settings[9]
    low, high = padding, resolution - padding
    step = dash + 2.0 * gap
    if start == 0:
        x = low + uniform(state) * (high - low)
        y = low + uniform(state) * (high - low)
    elif start == 1:
        x = 0.5 * resolution + settings[16] * (2.0 * uniform(state) - 1.0)
        y = 0.5 * resolution + settings[16] * (2.0 * uniform(state) - 1.0)
    else:
        angle = uniform(state) * 2.0 * np.pi
        x, y = dashes[0, 0] + settings[17] * np.cos(angle), dashes[0, 1] + settings[17] * np.sin(angle)
    heading = uniform(state) * 2.0 * np.pi
    for k in range(count):
        placed = False
        for _ in range(10 if k > 0 else 1):
            direction = heading + _turn(state, continuity) if k > 0 else heading
            dx, dy = np.cos(direction), np.sin(direction)
            piece = dashes[n + k]
            piece[0], piece[1] = x + gap * dx, y + gap * dy
            piece[2], piece[3] = x + (gap + dash) * dx, y + (gap + dash) * dy
            if min(piece[0], piece[1], piece[2], piece[3]) < low or max(piece[0], piece[1], piece[2], piece[3]) > high:
                continue
            placed = True
            for other in range(n + k - 1 if k > 0 else n):
                if not _apart(piece, dashes[other], dash, clearance):
                    placed = False
                    break
            if placed:
                x, y, heading = x + step * dx, y + step * dy, direction
                break
        if not placed:
            return False
    return True


@njit(cache=True, nogil=True)
def _scene(settings: tuple, state: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    gap_min, gap_max, n_distractors, tolerance = settings[2], settings[3], settings[8], settings[10]
    long_dashes, short_dashes = settings[11], settings[12]
    from_seeds = settings[17] > 0.0
    dashes = np.empty((2 * long_dashes + n_distractors * short_dashes, 4))
    paths = np.empty(len(dashes), np.int64)
    dots = np.empty((2, 2))
    found = False
    gap = 0.0
    while not found:
        drawn = gap_min + below(state, int(gap_max - gap_min) + 1)
        if gap == 0.0 or not from_seeds:  # ``lra``: wide gaps, which fit more rarely, are as frequent as narrow ones
            gap = drawn
        clearance = settings[14] * gap
        if not _grow(state, dashes, 0, long_dashes, settings, gap, clearance, 1 if from_seeds else 0):
            continue
        for _ in range(200):
            if _grow(state, dashes, long_dashes, long_dashes, settings, gap, clearance, 2 if from_seeds else 0):
                found = _place_dots(state, dashes, long_dashes, settings[0], tolerance, label, dots, from_seeds)
                if found:
                    break
    paths[:long_dashes] = 0
    paths[long_dashes : 2 * long_dashes] = 1
    n, path = 2 * long_dashes, 2
    for _ in range(n_distractors):
        for _ in range(settings[15]):
            if _grow(state, dashes, n, short_dashes, settings, gap, clearance, 0):
                paths[n : n + short_dashes] = path
                n, path = n + short_dashes, path + 1
                break
    return dashes[:n].copy(), paths[:n].copy(), dots


@njit(cache=True, nogil=True)
def _place_dots(
    state: np.ndarray,
    dashes: np.ndarray,
    long_dashes: int,
    resolution: int,
    tolerance: float,
    label: int,
    dots: np.ndarray,
    from_seeds: bool,
) -> bool:
    """Choose at random an end, the other end of its path and a like end of the other path; the label picks a partner.
    With ``from_seeds`` the first is where a path starts and its partners are where paths end.

    Draws the same numbers whatever the label. False if no end has two like partners.
    """
    ends = np.empty((4, 2))  # the two of path 0, the two of path 1
    for path in range(2):
        ends[2 * path] = dashes[path * long_dashes, :2]
        ends[2 * path + 1] = dashes[(path + 1) * long_dashes - 1, 2:]
    matches = np.empty((8, 3), np.int64)
    n = 0
    middle = 0.5 * resolution
    for end in range(4):
        joined = end ^ 1
        for other in range(4):
            if other // 2 == end // 2 or (from_seeds and (end % 2 == 1 or other % 2 == 0)):
                continue
            apart = _distance(ends[end], ends[joined]) - _distance(ends[end], ends[other])
            radius = np.hypot(ends[joined, 0] - middle, ends[joined, 1] - middle) - np.hypot(
                ends[other, 0] - middle, ends[other, 1] - middle
            )
            if abs(apart) <= tolerance and abs(radius) <= 2 * tolerance:
                matches[n] = (end, joined, other)
                n += 1
    if n == 0:
        return False
    match = matches[below(state, n)]
    dots[0], dots[1] = ends[match[0]], ends[match[1 if label == 1 else 2]]
    return True


@njit(cache=True, nogil=True)
def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return np.hypot(a[0] - b[0], a[1] - b[1])

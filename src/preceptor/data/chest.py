"""A drawn frontal chest film: soft tissue, lungs, mediastinum and heart, ribs, clavicles, vessels, devices, exposure.

Brightness stands for density, as on a film. Anatomy coordinates: across -1..1 with the patient's right on the left of
the image, down -1..1 from above the lungs to the upper abdomen. Nothing here is taken from a real film.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FINE = 4
"""Outlines are drawn at this multiple of the film's size and averaged down, for smooth edges."""

Points = Sequence[tuple[float, float]]
Numbers = np.random.Generator

# Outlines (distance from the middle, down) of an average chest; a patient's are stretched and shifted versions.
LUNG: Points = (
    (0.29, -0.80), (0.42, -0.745), (0.55, -0.60), (0.65, -0.38), (0.72, -0.12), (0.765, 0.14), (0.79, 0.38),
    (0.80, 0.575), (0.775, 0.575), (0.68, 0.47), (0.52, 0.39), (0.36, 0.375), (0.23, 0.40), (0.13, 0.405),
    (0.115, 0.25), (0.135, -0.02), (0.12, -0.28), (0.13, -0.55), (0.19, -0.74),
)  # fmt: skip
BODY: Points = (
    (0.0, -1.3), (0.24, -1.3), (0.26, -1.0), (0.42, -0.92), (0.70, -0.85), (0.95, -0.70), (1.12, -0.45), (1.12, -0.20),
    (0.97, -0.02), (0.93, 0.25), (0.94, 0.6), (1.0, 1.4), (0.0, 1.4),
)  # fmt: skip


@dataclass(frozen=True)
class Chest:
    """A patient on one film. density: float [S, S], about 0..1, without noise.

    left, right: the patient's lungs, 0..1, without what lies behind heart and great vessels.
    """

    density: np.ndarray
    left: np.ndarray
    right: np.ndarray


class Sheet:
    """The film's pixels in anatomy coordinates, for a patient who stands a little shifted, turned, near or far."""

    def __init__(self, size: int, pose: Numbers) -> None:
        self.size = size
        angle, scale = math.radians(pose.normal(0, 1.2)), 1.0 + pose.normal(0, 0.025)
        self.shift = pose.normal(0, 0.02, 2)
        self.linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middles = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
        seen = np.stack(np.meshgrid(middles, middles), axis=-1) - self.shift
        across, down = np.moveaxis(seen @ np.linalg.inv(self.linear).T, -1, 0)
        self.across, self.down = across.astype(np.float32), down.astype(np.float32)

    def filled(self, outlines: Sequence[Points]) -> np.ndarray:
        """Share of each pixel inside any of the closed outlines, float32 [S, S]."""
        from PIL import Image, ImageDraw

        picture = Image.new("L", (self.size * FINE,) * 2)
        for outline in outlines:
            ImageDraw.Draw(picture).polygon(self._pixels(outline), fill=255)
        return self._reduced(picture)

    def stroked(self, strokes: Sequence[tuple[Points, float, float]]) -> np.ndarray:
        """Lines of (points, width in anatomy units, strength 0..1), later ones over earlier ones; float32 [S, S]."""
        from PIL import Image, ImageDraw

        picture = Image.new("L", (self.size * FINE,) * 2)
        brush = ImageDraw.Draw(picture)
        for points, width, strength in strokes:
            thick = max(1, round(width * self.size * FINE / 2))
            brush.line(
                self._pixels(points),
                fill=round(255 * strength),
                width=thick,
                joint="curve" if thick > 2 * FINE else None,
            )
        return self._reduced(picture)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        places = (np.asarray(points) @ self.linear.T + self.shift + 1) * (self.size * FINE / 2)
        return [(x, y) for x, y in places.tolist()]

    def _reduced(self, picture: "object") -> np.ndarray:
        return np.asarray(picture.reduce(FINE), dtype=np.float32) / 255  # type: ignore[attr-defined]


def draw_chest(size: int, patient: Numbers, pose: Numbers) -> Chest:
    """The film of a patient without findings. patient: numbers of the anatomy; pose: of this film."""
    sheet = Sheet(size, pose)
    shape = Anatomy(patient)
    across, down = sheet.across, sheet.down
    right = sheet.filled([shape.lung(-1)])
    left = sheet.filled([shape.lung(+1)])
    lungs = blurred(right + left, 0.012 * size)
    body = blurred(sheet.filled([shape.body()]), 0.012 * size)
    middle = across + 0.02 * np.sin(3 * down + shape.lean)
    wide = 0.115 + 0.03 * _bump(down, -0.62, 0.2) + 0.02 * _bump(down, 0.1, 0.3)
    vessels = _step(wide * shape.width - np.abs(middle), 0.025)
    heart = _step(1 - np.hypot(*shape.in_heart(across, down)), 0.07)
    knob = _step(1 - np.hypot((across - 0.12 * shape.width) / 0.085, (down + 0.30) / 0.10), 0.13)
    # the heart and the great vessels hide the lung, they do not add to each other
    solid = 1 - (1 - vessels) * (1 - heart) * (1 - 0.45 * knob)
    density = 0.47 + 0.06 * _step(down - 0.45, 0.12) - 0.05 * np.abs(across) ** 2
    density -= 0.38 * lungs * (1 - 0.16 * _bump(down, 0.1, 0.45)) * (1 - 0.95 * solid)
    density += (0.07 + 0.035 * _step(0.42 - down, 0.15) * _step(down + 0.7, 0.2)) * solid
    segments = 0.5 + 0.5 * np.cos((down + 0.02 * shape.lean) * 2 * math.pi / 0.17)
    density += (0.035 + 0.03 * _step(segments - 0.22, 0.12)) * _step(0.078 - np.abs(middle), 0.012)
    density -= 0.10 * _step(0.036 - np.abs(across - 0.012), 0.013) * _step(-0.22 - down, 0.05)
    hila = (
        1 - np.hypot((side * across - 0.18) / 0.10, (down - height) / 0.16) for side, height in ((-1, 0.0), (1, -0.06))
    )
    open_lung = lungs * (1 - 0.8 * solid)
    density += 0.07 * sum(_step(hilum, 0.4) for hilum in hila) * (1 - 0.7 * solid)
    bubble = 1 - np.hypot((across - 0.42 * shape.width) / 0.16, (down - 0.70) / 0.09)
    density -= shape.bubble * _step(bubble, 0.3)
    density += 0.115 * blurred(sheet.stroked(shape.ribs()), 0.003 * size) * (0.4 + 0.6 * open_lung)
    density += 0.14 * blurred(sheet.stroked(shape.vessels()), 0.004 * size) * open_lung
    density += 0.17 * blurred(sheet.stroked(shape.clavicles()), 0.004 * size)
    density += 0.05 * blurred(sheet.filled([shape.scapula(-1), shape.scapula(+1)]), 0.008 * size)
    return Chest(0.02 + density * body, left * (1 - solid), right * (1 - solid))


class Anatomy:
    """One patient's proportions, and outlines and lines that follow from them."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.width, self.height = 1.0 + numbers.normal(0, 0.045), 1.0 + numbers.normal(0, 0.035)
        self.lean = numbers.uniform(-1, 1)
        self.dome = {-1: numbers.normal(0, 0.025), 1: 0.05 + numbers.normal(0, 0.025)}
        self.heart = (0.13 + numbers.normal(0, 0.02), 0.24, 0.37 * (1 + numbers.normal(0, 0.08)), 0.31)
        self.tilt = numbers.uniform(0.4, 0.7)
        self.slope = numbers.normal(0.24, 0.025)
        self.bubble = numbers.uniform(0.0, 0.16)
        self.wobble = {side: numbers.normal(0, 0.007, (len(LUNG), 2)) for side in (-1, 1)}

    def lung(self, side: int) -> Points:
        """side -1: the patient's right lung, on the left of the image."""
        points = np.asarray(LUNG) + self.wobble[side]
        low = np.clip((points[:, 1] - 0.1) / 0.4, 0, 1)
        return _closed(self._placed(points + np.stack([0 * low, low * self.dome[side]], axis=1), side))

    def body(self) -> Points:
        half = np.asarray(BODY)
        both = np.concatenate([self._placed(half, 1), self._placed(half, -1)[::-1]])
        return [(x, y) for x, y in both.tolist()]

    def in_heart(self, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates in which the heart is the unit circle."""
        x, y, broad, tall = self.heart
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        dx, dy = across - x * self.width, down - y
        return (cos * dx + sin * dy) / (broad * self.width), (-sin * dx + cos * dy) / tall

    def ribs(self) -> list[tuple[Points, float, float]]:
        """Nine pairs: the bright posterior arch from the spine, the fainter anterior part back towards the middle."""
        strokes: list[tuple[Points, float, float]] = []
        t = np.linspace(0, 1, 24)
        for side in (-1, 1):
            for number in range(9):
                start = -0.80 + 0.138 * number
                rise = 0.02 + 0.012 * number
                end = min(start + self.slope, 0.62)
                wall = float(np.interp(end, [p[1] for p in LUNG[:8]], [p[0] for p in LUNG[:8]])) + 0.02
                behind = np.stack(
                    [
                        0.07 + (wall - 0.07) * np.sin(t * math.pi / 2),
                        start - rise * np.sin(t * math.pi) + self.slope * t**2.3,
                    ],
                    1,
                )
                before = np.stack(
                    [wall - (wall - 0.30) * t**1.5, end + (0.24 + 0.012 * number) * np.sin(t * math.pi / 2)], 1
                )
                strokes += self._bone(before, side, 0.042, 0.3, 0.5) if number < 6 else []
                strokes += self._bone(behind, side, 0.046, 0.55, 0.95)
        return strokes

    def _bone(
        self, line: np.ndarray, side: int, width: float, inside: float, edge: float
    ) -> list[tuple[Points, float, float]]:
        """A band with brighter borders."""
        placed = [(self._placed(line + np.array([0, offset * width]), side), offset) for offset in (0.0, -0.5, 0.5)]
        return [(_pairs(points), *((width, inside) if offset == 0 else (0.011, edge))) for points, offset in placed]

    def clavicles(self) -> list[tuple[Points, float, float]]:
        strokes = []
        for side in (-1, 1):
            line = np.array(
                [(0.06, -0.585), (0.18, -0.60), (0.34, -0.655), (0.52, -0.70), (0.70, -0.715), (0.86, -0.76)]
            )
            strokes += self._bone(line + np.array([0, 0.012 * side * self.lean]), side, 0.06, 0.62, 1.0)
        return strokes

    def scapula(self, side: int) -> Points:
        outline = np.array([(0.74, -0.66), (0.98, -0.60), (0.96, -0.30), (0.86, -0.02), (0.80, 0.02), (0.77, -0.25)])
        return _closed(self._placed(outline, side))

    def vessels(self) -> list[tuple[Points, float, float]]:
        """Branches that leave each hilum and fork, thinner and fainter outwards."""
        strokes: list[tuple[Points, float, float]] = []
        for side in (-1, 1):
            growing = [(0.16, -0.03 - 0.03 * side, angle, 0.021) for angle in np.linspace(-1.35, 1.45, 7)]
            while growing:
                x, y, angle, width = growing.pop()
                length = self.numbers.uniform(0.09, 0.17)
                line = [(x, y)]
                for _ in range(4):
                    angle += self.numbers.normal(0, 0.11)
                    x, y = x + length / 4 * math.cos(angle), y + length / 4 * math.sin(angle)
                    line.append((x, y))
                strokes.append((_pairs(self._placed(np.array(line), side)), width, min(1.0, width / 0.02)))
                if width > 0.009 and abs(x) < 0.8:
                    spread = self.numbers.uniform(0.2, 0.45)
                    growing += [(x, y, angle + turn, width * 0.74) for turn in (-spread, spread)]
        return strokes[::-1]

    def _placed(self, points: np.ndarray, side: int) -> np.ndarray:
        return points * [side * self.width, self.height]


def draw_devices(size: int, pose: Numbers, film: Numbers) -> np.ndarray:
    """What lies on the patient: electrode pads with wires, or a catheter, or nothing; densities to add, [S, S]."""
    sheet = Sheet(size, pose)
    strokes: list[tuple[Points, float, float]] = []
    kind = film.choice(["none", "pads", "pads", "catheter", "both"])
    if kind in ("pads", "both"):
        for _ in range(film.integers(1, 4)):
            x, y = film.uniform(-0.75, 0.75), film.uniform(-0.6, 0.5)
            turn = np.linspace(0, 2 * math.pi, 24)
            ring = np.stack([x + 0.05 * np.cos(turn), y + 0.05 * np.sin(turn)], 1)
            edge = math.copysign(1.2, x)
            wire = _curve([(x, y), (x + 0.25 * edge, y + film.uniform(-0.1, 0.3)), (edge, y + film.uniform(0.1, 0.6))])
            strokes += [(wire, 0.014, 0.55), (_pairs(ring), 0.018, 0.5), ([(x - 0.013, y), (x + 0.013, y)], 0.03, 1.0)]
    if kind in ("catheter", "both"):
        side = film.choice([-1, 1])
        path = [(0.5 * side, -1.2), (0.42 * side, -0.75), (0.12 * side, -0.55), (-0.06, -0.35), (-0.075, -0.05)]
        strokes.append((_curve(path), 0.02, 0.7))
    return 0.34 * blurred(sheet.stroked(strokes), 0.002 * size)


def expose(density: np.ndarray, film: Numbers) -> np.ndarray:
    """uint8 [S, S] of a density: exposure, contrast, scatter, and noise that is stronger where the film is bright."""
    scattered = 0.93 * density + 0.07 * blurred(density, 0.08 * len(density))
    level, steepness = film.normal(0, 0.02), film.normal(1.25, 0.06)
    toned = 0.40 + (scattered - 0.36 + level) * steepness
    grain = film.normal(0, 1, density.shape).astype(np.float32)
    noise = 0.011 * grain + 0.02 * blurred(grain, 0.7)
    toned = toned + noise * (0.55 + np.clip(toned, 0, 1))
    return np.rint(255 * np.clip(toned, 0, 1)).astype(np.uint8)


def blurred(array: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur; sigma in pixels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(array, sigma, mode="nearest", truncate=3.0) if sigma > 0.1 else array


def _step(distance: np.ndarray, softness: float) -> np.ndarray:
    """0 far below zero, 1 far above, smooth over about +-softness."""
    return 0.5 + 0.5 * np.tanh(distance / softness)


def _bump(x: np.ndarray, middle: float, width: float) -> np.ndarray:
    return np.exp(-(((x - middle) / width) ** 2))


def _closed(points: np.ndarray) -> Points:
    """A smooth closed outline through the points."""
    from scipy.interpolate import CubicSpline

    ring = np.concatenate([points, points[:1]])
    lengths = np.concatenate([[0], np.cumsum(np.sqrt(np.hypot(*np.diff(ring, axis=0).T)))])
    return _pairs(CubicSpline(lengths, ring, bc_type="periodic")(np.linspace(0, lengths[-1], 160)))


def _curve(points: Points) -> Points:
    from scipy.interpolate import CubicSpline

    return _pairs(CubicSpline(np.arange(len(points)), points)(np.linspace(0, len(points) - 1, 40)))


def _pairs(points: np.ndarray) -> Points:
    return [(x, y) for x, y in points.tolist()]

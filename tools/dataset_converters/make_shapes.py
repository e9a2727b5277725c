"""Makes a small synthetic data set: few labeled scenes, many unlabeled ones, and a validation set.

A class is a shape with a texture; its color, the fineness of its texture and its proportions drift with a parameter
``look`` in [0, 1], and the illumination of a scene with ``light`` in [0, 1]. Labeled scenes show only the low end of
both, unlabeled and validation scenes the whole range evenly, so that unlabeled images lead from the known looks to the
others step by step.

    OUT/img_dir/{train,unlabeled,val}/0000.png    OUT/ann_dir/{train,val}/0000.png    OUT/manifest.json
"""
import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterator, Tuple

import cv2
import numpy as np

VERSION = 1
SIZE = 96
CLASSES = ('background', 'disk', 'box', 'triangle', 'star', 'ring', 'cross')
SPLITS = ('train', 'unlabeled', 'val')
KNOWN = 0.35  # labeled scenes draw look and light from [0, KNOWN]

# Hues in turns of the color wheel; classes are 1/6 apart. The drift leaves a gap before the next class begins, so a
# pseudo-label can follow a class to its last look, while labeled looks alone put the border short of it.
HUES = {name: k / 6 for k, name in enumerate(CLASSES[1:])}
DRIFT = 0.12


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """A color as float RGB [3] in 0..1; hue in turns."""
    steps = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return value - value * saturation * np.clip(np.minimum(steps, 4 - steps), 0, 1)


def smooth_noise(rng: np.random.RandomState, cells: int) -> np.ndarray:
    """Float [SIZE, SIZE] in 0..1, about ``cells`` blobs along a side."""
    return cv2.resize(rng.rand(cells + 1, cells + 1), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def region(name: str, u: np.ndarray, v: np.ndarray, look: float) -> np.ndarray:
    """Where the shape is, bool, on its own coordinates in about -1..1; proportions drift with ``look``."""
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    if name == 'disk':
        return np.hypot(u, v / (1 - 0.35 * look)) < 1
    if name == 'box':
        return np.maximum(abs(u), abs(v) / (1 - 0.45 * look)) < 0.85
    if name == 'triangle':
        return (v > -0.75) & (abs(u) * (1 + 0.4 * look) < (0.95 - v) * 0.6)
    if name == 'star':
        return r < 0.7 + (0.2 + 0.12 * look) * np.cos(5 * angle)
    if name == 'ring':
        return (r < 1) & (r > 0.35 + 0.2 * look)
    arm = 0.36 - 0.1 * look
    return (np.minimum(abs(u), abs(v)) < arm) & (np.maximum(abs(u), abs(v)) < 0.95)


def texture(name: str, u: np.ndarray, v: np.ndarray, look: float, rng: np.random.RandomState) -> np.ndarray:
    """Share of the second color, float in 0..1; finer as ``look`` grows."""
    pitch, phase = np.pi * (1.6 + 1.8 * look), rng.uniform(0, 2 * np.pi)
    if name == 'disk':
        wave = np.sin(2 * pitch * np.hypot(u, v) + phase)
    elif name == 'box':
        wave = np.sin(2 * pitch * u + phase)
    elif name == 'triangle':
        wave = 2 * np.sin(1.6 * pitch * u + phase) * np.sin(1.6 * pitch * v + phase) - 0.6
    elif name == 'star':
        wave = np.sin(np.arctan2(v, u) * 5)
    elif name == 'ring':
        wave = np.sin(np.arctan2(v, u) * round(4 + 6 * look) + phase)
    else:
        wave = np.sin(1.5 * pitch * (u + v) + phase) + np.sin(1.5 * pitch * (u - v) + phase)
    return 1 / (1 + np.exp(-4 * wave))


def paint_object(image: np.ndarray, mask: np.ndarray, label: int, look: float, rng: np.random.RandomState) -> None:
    """Adds one object of class ``label`` to ``image``, float [SIZE, SIZE, 3], and to ``mask``, uint8."""
    name = CLASSES[label]
    center, radius, turn = rng.uniform(0.08, 0.92, 2) * SIZE, rng.uniform(11, 22), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIZE, :SIZE]
    x, y = (x - center[0]) / radius, (y - center[1]) / radius
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    inside = region(name, u, v, look)
    hue = HUES[name] + DRIFT * look + rng.uniform(-0.01, 0.01)
    first = hsv(hue, 0.85 - 0.35 * look, 0.95 - 0.2 * look)
    second = hsv(hue, 0.6 + 0.3 * look, 0.45 + 0.2 * look)
    share = texture(name, u, v, look, rng)[..., None]
    image[inside] = (first * (1 - share) + second * share)[inside]
    mask[inside] = label


def paint_background(light: float, rng: np.random.RandomState) -> np.ndarray:
    """Float [SIZE, SIZE, 3]: two pale colors mingled by noise; their hue drifts with ``light``."""
    hue = rng.uniform(0, 0.15) + 0.15 * light
    share = (0.6 * smooth_noise(rng, 4) + 0.4 * smooth_noise(rng, 16))[..., None]
    return hsv(hue, 0.15 + 0.1 * light, 0.85 - 0.2 * light) * (1 - share) + hsv(hue + 0.1, 0.25, 0.45) * share


def illuminate(image: np.ndarray, light: float, rng: np.random.RandomState) -> np.ndarray:
    """Uint8 image under a light that turns from white to a dim, colored, uneven and grainy one."""
    y, x = np.mgrid[:SIZE, :SIZE] / (SIZE - 1.0) - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    slope = 1 + 0.7 * light * (x * np.cos(turn) + y * np.sin(turn))
    cast = 1 - light * np.array([0.25, 0.175, 0.075])
    image = image * slope[..., None] * cast
    image = image + rng.normal(0, 0.015 + 0.02 * light, image.shape)
    return (image * 255).clip(0, 255).round().astype(np.uint8)


def scene(seed: int, split: str, index: int) -> Tuple[np.ndarray, np.ndarray]:
    """One scene, a pure function of its arguments.

    Returns:
        tuple: Image, uint8 RGB [SIZE, SIZE, 3], and mask, uint8 [SIZE, SIZE] in 0..6.
    """
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, SPLITS.index(split), index])))
    reach = KNOWN if split == 'train' else 1.0
    light = rng.uniform(0, reach)
    image, mask = paint_background(light, rng), np.zeros((SIZE, SIZE), np.uint8)
    # Three classes by turns, so that even a dozen scenes show each class equally often; two at random.
    foreground = len(CLASSES) - 1
    labels = [1 + (3 * index + k) % foreground for k in range(3)] + list(1 + rng.randint(foreground, size=2))
    for label in rng.permutation(labels):
        paint_object(image, mask, label, rng.uniform(0, reach), rng)
    return illuminate(image, light, rng), mask


def files(seed: int, counts: Dict[str, int]) -> Iterator[Tuple[str, bytes]]:
    """Relative path and PNG bytes of every file; masks of unlabeled scenes are never made into files."""
    for split, count in counts.items():
        for index in range(count):
            image, mask = scene(seed, split, index)
            yield f'img_dir/{split}/{index:04d}.png', cv2.imencode('.png', image[..., ::-1])[1].tobytes()
            if split != 'unlabeled':
                yield f'ann_dir/{split}/{index:04d}.png', cv2.imencode('.png', mask)[1].tobytes()


def is_complete(out: Path, settings: dict) -> bool:
    """Whether ``out`` holds the set of these settings with every file as it was written."""
    try:
        manifest = json.loads((out / 'manifest.json').read_text())
        return manifest['settings'] == settings and all(
            hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
            for name, digest in manifest['sha256'].items())
    except (OSError, ValueError, KeyError):
        return False


def make_shapes(out: str, seed: int = 0, num_labeled: int = 12, num_unlabeled: int = 240, num_val: int = 60) -> bool:
    """Writes the data set, all of it or nothing.

    Args:
        out (str): Folder to make. A complete set of the same settings is kept as it is.
        seed (int): Non-negative; equal settings give equal bytes.
        num_labeled (int): Scenes in ``train``, with masks, positive.
        num_unlabeled (int): Scenes in ``unlabeled``, without, positive.
        num_val (int): Scenes in ``val``, with masks, positive.

    Returns:
        bool: Whether the set was written; False where it was there already.

    Raises:
        ValueError: If a count is not positive or the seed negative.
        FileExistsError: If ``out`` holds anything else.
    """
    counts = dict(zip(SPLITS, (num_labeled, num_unlabeled, num_val), strict=True))
    if min(counts.values()) < 1 or seed < 0:
        raise ValueError(f'counts must be positive and the seed not negative, got {counts} and seed {seed}')
    settings = dict(version=VERSION, seed=seed, size=SIZE, **counts)
    target = Path(out).resolve()
    if is_complete(target, settings):
        return False
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f'{target} holds no complete shapes set of {settings}: remove it or choose another')
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f'.{target.name}.', dir=target.parent))
    try:
        digests = {}
        for name, content in files(seed, counts):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
            digests[name] = hashlib.sha256(content).hexdigest()
        (work / 'manifest.json').write_text(json.dumps(dict(settings=settings, sha256=digests), indent=1))
        os.chmod(work, 0o755)  # mkdtemp's folder is private
        os.replace(work, target)
    except OSError:
        if not is_complete(target, settings):  # else another process was faster
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', required=True, help='folder to make')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--num-labeled', type=int, default=12)
    parser.add_argument('--num-unlabeled', type=int, default=240)
    parser.add_argument('--num-val', type=int, default=60)
    args = parser.parse_args()
    try:
        written = make_shapes(**vars(args))
    except (ValueError, OSError) as error:
        sys.exit(f'make_shapes: {error}')
    print(f"{'wrote' if written else 'kept'} {args.out}: {args.num_labeled} labeled, {args.num_unlabeled} unlabeled, "
          f'{args.num_val} validation images')


if __name__ == '__main__':
    main()

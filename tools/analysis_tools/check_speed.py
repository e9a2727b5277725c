"""Times tools/check_dataset.py on generated photographs of 500 x 375, a tenth labeled, a tenth validation.

    python tools/analysis_tools/check_speed.py --images 2000

The images, JPEG of about 60 kB, and the masks, PNG, lie in a temporary folder that is removed afterwards. The time is
that of the whole command with ``--hash``, imports and page included.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported)

# isort: split

import cv2
import numpy as np
from mmengine.utils import ProgressBar

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH, CLASSES = 375, 500, 21
CONFIG = '''
default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_semi'])
load = [dict(type='LoadImageFromFile')]
labeled = dict(
    type='BaseSegDataset', data_root={root!r}, metainfo=dict(classes=[f'class {{c}}' for c in range({classes})]),
    data_prefix=dict(img_path='labeled', seg_map_path='labeled_masks'), pipeline=load + [dict(type='LoadAnnotations')])
unlabeled = dict(
    type='UnlabeledDataset', data_root={root!r}, data_prefix=dict(img_path='unlabeled'), pipeline=load)
train_dataloader = dict(dataset=dict(type='SemiDataset', labeled=labeled, unlabeled=unlabeled))
val_dataloader = dict(dataset=dict(labeled, data_prefix=dict(img_path='val', seg_map_path='val_masks')))
'''


def make_image(rng: np.random.Generator) -> np.ndarray:
    """Smooth colors with a little grain, uint8 [375, 500, 3], so that a JPEG is about as long as a photograph's."""
    colors = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (WIDTH, HEIGHT),
                        interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return (colors + rng.integers(-12, 13, colors.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8)


def make_data(root: Path, images: int) -> None:
    """Writes the data set and its config."""
    rng, tenth = np.random.default_rng(0), max(images // 10, 1)
    bar = ProgressBar(images, file=sys.stderr)
    for folder, count in (('labeled', tenth), ('val', tenth), ('unlabeled', images - 2 * tenth)):
        (root / folder).mkdir()
        if folder != 'unlabeled':
            (root / f'{folder}_masks').mkdir()
        for i in range(count):
            cv2.imwrite(str(root / folder / f'{i:06}.jpg'), make_image(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
            if folder != 'unlabeled':
                labels = rng.permutation(np.arange(48, dtype=np.uint8) % CLASSES).reshape(6, 8)  # all of them
                labels = cv2.resize(labels, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
                cv2.imwrite(str(root / f'{folder}_masks' / f'{i:06}.png'), labels)
            bar.update()
    print(file=sys.stderr)
    (root / 'config.py').write_text(CONFIG.format(root=str(root), classes=CLASSES))


def main() -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=2000, help='how many, at least 10 (default: 2000)')
    parser.add_argument('--workers', type=int, help='processes of the check (default: its own)')
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    args = parser.parse_args()
    if args.images < 10:
        parser.error(f'--images must be at least 10, found {args.images}')
    with tempfile.TemporaryDirectory(prefix='check_speed.') as folder:
        make_data(Path(folder), args.images)
        command = [sys.executable, '-W', 'ignore', str(ROOT / 'tools/check_dataset.py'), f'{folder}/config.py',
                   '--hash', '--html', f'{folder}/page.html', '--json']
        command += ['--workers', str(args.workers)] if args.workers else []
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        print(f'error: check_dataset ended with status {done.returncode}', file=sys.stderr)
        return 2
    report = json.loads(done.stdout.splitlines()[-1])
    result = dict(images=sum(source['images'] for source in report['sources']), seconds=round(seconds, 1),
                  images_per_second=round(args.images / seconds, 1), cores=os.cpu_count(), workers=args.workers)
    print(f'{result["images"]} images in {seconds:.1f} s, {result["images_per_second"]} images/s; 10,000 would take '
          f'{10000 / result["images_per_second"] / 60:.1f} minutes')
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

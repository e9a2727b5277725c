"""Measures what a pool of a million unlabeled images costs before the first of them is read.

    python tools/analysis_tools/pool_scale.py
    python tools/analysis_tools/pool_scale.py --folder    # the folder is searched instead

The images are empty files, made first. A list of them is read by ``UnlabeledDataset`` with a labeled set to leave
out, then fed by ``LabeledUnlabeledSampler`` and workers that make no pictures. Memory is read from /proc (Linux).
"""
import argparse
import itertools
import json
import os
import re
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Dict, List

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mmseg_semi.datasets import LabeledUnlabeledSampler, SemiDataset
from mmseg_semi.engine.hooks.partition_hook import describe

batch_numbers = itertools.count()  # each worker goes on with its own copy
LABELED = 1000  # of the pool's images, so they have to be found and left out
COUNTS = (8, 8)
MB = 1024**2


def memory(file: str, *names: str) -> float:
    """Sum of some lines of a file below /proc/self, in MB."""
    text = Path('/proc/self', file).read_text()
    return sum(int(re.search(rf'^{name}:\s+(\d+) kB', text, re.M).group(1)) for name in names) / 1024


def private() -> float:
    """Memory that this process shares with no other, in MB."""
    return memory('smaps_rollup', 'Private_Clean', 'Private_Dirty')


def write_lists(folder: Path, images: int) -> None:
    """``pool.txt``, paths as a fleet of cameras leaves them, ``labeled.txt``, some of these, and the empty files."""
    step = max(images // LABELED, 1)
    with open(folder / 'pool.txt', 'w') as pool, open(folder / 'labeled.txt', 'w') as labeled:
        for i in range(images):
            name = f'camera_{i % 40:02}/day_{i // 40 % 365:03}/frame_{i:09}'
            pool.write(f'{name}.jpg\n')
            if i % step == 0:
                labeled.write(f'{name}\n')
            path = folder / 'img' / f'{name}.jpg'
            if i < 40 * 365:  # as many folders
                path.parent.mkdir(parents=True)
            path.touch()


def build(folder: Path, files: bool) -> SemiDataset:
    """Labeled images and pool, as a config names them."""
    labeled = dict(type='BaseSegDataset', ann_file='labeled.txt', data_root=str(folder), pipeline=[],
                   data_prefix=dict(img_path='img', seg_map_path='ann'), metainfo=dict(classes=('a', 'b')))
    return SemiDataset(labeled, dict(type='UnlabeledDataset', ann_file='' if files else 'pool.txt', pipeline=[],
                                     data_root=str(folder), data_prefix=dict(img_path='img'), exclude_sets=[labeled]))


def note(samples: List[dict]) -> Dict[str, float]:
    """Stands for a collate function: which worker read a batch, and its own memory at every 25th of them."""
    return dict(pid=os.getpid(), private=0. if next(batch_numbers) % 25 else private())


def measure_workers(dataset: SemiDataset, sampler: LabeledUnlabeledSampler, workers: int, samples: int) -> dict:
    """Starts an epoch, reads some of it, and reports the start and the growth of the workers."""
    loader = DataLoader(dataset, batch_size=sum(COUNTS), sampler=sampler, num_workers=workers, collate_fn=note)
    sampler.set_epoch(1)
    start = time.perf_counter()
    batches = iter(loader)
    notes = [next(batches)]
    seconds = time.perf_counter() - start
    for _ in range(min(workers * samples, len(sampler)) // sum(COUNTS) - 1):
        notes.append(next(batches))
    del batches
    pids = {n['pid'] for n in notes}
    own = {pid: [n['private'] for n in notes if n['pid'] == pid and n['private']] for pid in pids}
    return dict(epoch_start_s=seconds, worker_growth_mb=max(max(row) - row[0] for row in own.values()),
                worker_samples=len(notes) * sum(COUNTS) // len(own))


def measure_digest(dataset: SemiDataset) -> dict:
    """What ``PartitionHook`` does once, before the first step: the digest of the pool's names."""
    before = memory('status', 'VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # the peak counts from here
    start = time.perf_counter()
    count = describe(dataset.datasets[1])['count']
    return dict(digest_images=count, digest_s=time.perf_counter() - start,
                digest_peak_mb=memory('status', 'VmHWM') - before)


def measure(images: int, workers: int, samples: int, files: bool) -> dict:
    """All figures, unrounded."""
    with tempfile.TemporaryDirectory() as name:
        write_lists(Path(name), images)
        init_default_scope('mmseg')
        before = memory('status', 'VmRSS')
        Path('/proc/self/clear_refs').write_text('5')  # the peak counts from here
        start = time.perf_counter()
        dataset = build(Path(name), files)
        result = dict(images=len(dataset.datasets[1]), list_s=time.perf_counter() - start)
        result.update(list_mb=memory('status', 'VmRSS') - before, list_peak_mb=memory('status', 'VmHWM') - before)
        sampler = LabeledUnlabeledSampler(dataset, counts=COUNTS, seed=0, infinite=False)
        tracemalloc.start()
        indices = iter(sampler)
        for _ in range(2 * sum(COUNTS)):
            next(indices)
        result.update(sampler_mb=tracemalloc.get_traced_memory()[1] / MB, permutation_mb=8 * len(dataset) / MB)
        tracemalloc.stop()
        del indices
        result.update(measure_digest(dataset))
        result.update(measure_workers(dataset, sampler, workers, samples), workers=workers)
    return result


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=1_000_000, help='paths in the pool (default: 1000000)')
    parser.add_argument('--workers', type=int, default=4, help='of the data loader (default: 4)')
    parser.add_argument('--samples', type=int, default=20_000, help='read by each worker (default: 20000)')
    parser.add_argument('--folder', action='store_true', help='search a folder instead of reading a list')
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    args = parser.parse_args()
    for option, least in (('images', 2 * sum(COUNTS)), ('workers', 1), ('samples', 2 * sum(COUNTS))):
        if getattr(args, option) < least:
            parser.error(f'--{option} must be at least {least}, got {getattr(args, option)}')
    if not Path('/proc/self/smaps_rollup').exists():
        parser.error('memory is read from /proc/self/smaps_rollup, which only Linux has')
    r = measure(args.images, args.workers, args.samples, args.folder)
    source = 'folder' if args.folder else 'list'
    print(f'{source} of {r["images"]:,} images: {r["list_s"]:.1f} s, {r["list_mb"]:.0f} MB, at its peak '
          f'{r["list_peak_mb"]:.0f} MB')
    print(f'sampler: {r["sampler_mb"]:.1f} MB at its peak; a permutation of all images is {r["permutation_mb"]:.1f} MB')
    print(f'digest of all names, once a run: {r["digest_s"]:.1f} s, {r["digest_peak_mb"]:.0f} MB at its peak')
    print(f'epoch start, {r["workers"]} workers: {r["epoch_start_s"]:.2f} s')
    print(f'a worker after {r["worker_samples"]:,} samples: {r["worker_growth_mb"]:.1f} MB more of its own')
    if args.json:
        print(json.dumps({key: round(value, 3) for key, value in r.items()}))


if __name__ == '__main__':
    main()

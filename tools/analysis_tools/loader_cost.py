"""Times how long a worker takes for a labeled and for an unlabeled sample of a config.

    python tools/analysis_tools/loader_cost.py configs/pcr/pcr_lite0_camvid_24.py
"""
import argparse
import json
import statistics
import time

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils.dl_utils import set_multi_processing

from mmseg_semi.datasets import SemiDataset
from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, read_config
from mmseg_semi.registry import DATASETS


def build(cfg: Config) -> SemiDataset:
    """The training set.

    Raises:
        TypeError: If it is not a :class:`SemiDataset`.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if not isinstance(dataset, SemiDataset):
        raise TypeError(f'loader_cost needs a SemiDataset; train_dataloader.dataset.type is '
                        f'{cfg.train_dataloader.dataset.type!r}')
    return dataset


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--samples', type=int, default=100, help='of each kind (default: 100)')
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--cfg-options', nargs='+', action=Options, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()
    set_multi_processing(opencv_num_threads=0)  # as in a worker
    cfg = None
    try:
        cfg = read_config(args.config)
        cfg.merge_from_dict(args.cfg_options)
        dataset = build(cfg)
    except MISTAKES as error:
        give_up(error, cfg)
    times = [[], []]
    for i in range(args.samples):
        for source, milliseconds in zip(dataset.datasets, times, strict=True):
            start = time.perf_counter()
            source[i % len(source)]
            milliseconds.append(1000 * (time.perf_counter() - start))
    labeled, unlabeled = (statistics.median(column) for column in times)
    sampler = cfg.train_dataloader.sampler
    counts = sampler.get('sampler', sampler).counts  # a ReplaySampler's own
    result = dict(
        labeled_ms=round(labeled, 3),
        unlabeled_ms=round(unlabeled, 3),
        ratio=round(unlabeled / labeled, 3),
        batch_ms=round(labeled * counts[0] + unlabeled * counts[1], 1),
        samples=args.samples,
        config=args.config)
    print(f'labeled {labeled:.2f} ms, unlabeled {unlabeled:.2f} ms per sample (ratio {result["ratio"]}); one worker '
          f'makes a batch of {counts[0]} + {counts[1]} in {result["batch_ms"]} ms')
    if args.json:
        print(json.dumps(result))


if __name__ == '__main__':
    main()

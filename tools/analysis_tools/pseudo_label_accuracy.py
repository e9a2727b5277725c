"""How many pixels of each class reach a confidence, and how many of those are right: is a threshold safe?

    python tools/analysis_tools/pseudo_label_accuracy.py CONFIG CHECKPOINT [--thresholds 0 0.8 0.95] [--json]

Predicts the validation images with the network that `model.eval_with` names and compares with their ground truth. A
class whose pixels rarely survive a threshold fades during training; one that survives but is wrong spreads its error.
"""
import argparse
import json

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

import torch
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.utils import track_iter_progress

from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, read_config
from mmseg_semi.registry import DATASETS, MODELS


@torch.no_grad()
def count(model, dataset, thresholds, num_classes: int) -> torch.Tensor:
    """Pixels per threshold and true class: all, kept, kept and right; [T, C, 3] float64."""
    total = torch.zeros(len(thresholds), num_classes, 3, dtype=torch.float64)
    for i in track_iter_progress(range(len(dataset))):
        sample = dataset[i]
        truth = sample['data_samples'].gt_sem_seg.data.flatten()
        result = model.test_step(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))[0]
        confidence, label = (t.flatten().cpu() for t in result.seg_logits.data.float().softmax(0).max(0))
        for row, threshold in zip(total, thresholds, strict=True):
            kept = confidence >= threshold
            for column, mask in enumerate((torch.ones_like(kept), kept, kept & (label == truth))):
                row[:, column] += torch.bincount(truth[mask & (truth < num_classes)], minlength=num_classes)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--thresholds', nargs='+', type=float, default=[0, 0.8, 0.95])
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--cfg-options', nargs='+', action=Options, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()
    cfg = None
    try:
        cfg = read_config(args.config)
        cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        model = MODELS.build(cfg.model)
        load_checkpoint(model, args.checkpoint, map_location='cpu')
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
    except MISTAKES as error:
        give_up(error, cfg)
    model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    names = dataset.metainfo['classes']
    total = count(model, dataset, args.thresholds, len(names))
    kept, right = total[..., 1] / total[..., 0], total[..., 2] / total[..., 1]
    print('\n' + 'kept % / right % of kept'.ljust(26) + ''.join(f'{f"tau {t:g}":>16}' for t in args.thresholds))
    for c, name in enumerate(names):
        print(name.ljust(26) + ''.join(f'{100 * k:8.1f} /{100 * r:6.1f}' for k, r in zip(kept[:, c], right[:, c],
                                                                                   strict=True)))
    everything = total.sum(1)
    print('all'.ljust(26) + ''.join(f'{100 * e[1] / e[0]:8.1f} /{100 * e[2] / e[1]:6.1f}' for e in everything))
    if args.json:
        print(json.dumps({'thresholds': args.thresholds, 'classes': list(names), 'pixels': total.tolist()}))


if __name__ == '__main__':
    main()

"""The main job in miniature: few labeled images and a folder of unlabeled ones in, a better segmentor out.

    python tools/demo.py                 # or: make demo

Makes a synthetic data set, trains a small network once on the labeled images alone and once with PCR, both from the
same random start and for the same number of steps, and compares them on validation images. Writes summary.json and
panel.png to the work directory.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported)

# isort: split

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from mmseg_semi.files import whole, write_text

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    'supervised': 'configs/supervised/supervised_tiny_shapes.py',
    'pcr': 'configs/pcr/pcr_tiny_shapes.py',
}


class Progress(Hook):
    """A bar with rate and time left instead of log lines."""

    def before_train(self, runner) -> None:
        self.bar = ProgressBar(runner.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.bar.update()

    def after_train(self, runner) -> None:
        print()


def prepare() -> None:
    """Makes the data set, or finds it made."""
    command = [sys.executable, '-W', 'ignore', 'tools/dataset_converters/make_shapes.py', '--out', 'data/shapes']
    if subprocess.run(command).returncode:
        raise SystemExit(2)  # it has told why


def train(method: str, work_dir: Path, seed: int, max_iters: int = 0) -> Runner:
    """Trains one method quietly; the log file in its work directory holds the details."""
    cfg = Config.fromfile(CONFIGS[method])
    cfg.work_dir, cfg.experiment_name = str(work_dir / method), f'demo_{method}_{seed}'
    cfg.randomness.seed, cfg.log_level = seed, 'ERROR'
    if max_iters:
        cfg.train_cfg.update(max_iters=max_iters, val_interval=max_iters)
        cfg.param_scheduler.end = max_iters
        if 'start_iter' in cfg.model:
            cfg.model.start_iter = max_iters // 4
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=-1, save_last=True)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Progress(), priority='LOWEST')
    print(f'{method}: {runner.max_iters} steps, batch {runner.cfg.train_dataloader.batch_size}', flush=True)
    runner.train()
    return runner


def miou(runner: Runner, key: str = 'mIoU') -> float:
    """The last validation result, in percent."""
    return round(float(runner.message_hub.get_scalar(f'val/{key}').current()), 2)


@torch.no_grad()
def draw_panel(runners: dict, path: Path, rows: int = 4) -> None:
    """Saves image, ground truth and both predictions side by side."""
    import matplotlib
    matplotlib.use('Agg')
    import numpy as np
    from matplotlib import pyplot as plt
    dataset = runners['pcr'].val_dataloader.dataset
    palette = np.array(dataset.metainfo['palette'], dtype=np.uint8)
    titles = ('image', 'ground truth', 'supervised', 'PCR (teacher)')
    figure, axes = plt.subplots(rows, 4, figsize=(8, 2.1 * rows))
    for i, row in enumerate(axes):
        sample = dataset[i * (len(dataset) // rows)]
        truth = sample['data_samples'].gt_sem_seg.data[0].numpy()
        pictures = [sample['inputs'].numpy()[::-1].transpose(1, 2, 0), palette[truth]]
        for method in ('supervised', 'pcr'):
            model = runners[method].model.eval()
            result = model.test_step(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))[0]
            pictures.append(palette[result.pred_sem_seg.data[0].cpu().numpy()])
        for axis, picture, title in zip(row, pictures, titles, strict=True):
            axis.imshow(picture)
            axis.axis('off')
            axis.set_title(title if i == 0 else '', fontsize=10)
    figure.tight_layout(pad=0.3)
    with whole(path) as part:
        figure.savefig(part, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', default='work_dirs/demo', type=Path)
    parser.add_argument('--seed', default=0, type=int)
    parser.add_argument('--steps', default=0, type=int, help='train for so many steps instead of the configs\' number')
    args = parser.parse_args()
    work_dir = args.work_dir.resolve()
    os.chdir(ROOT)
    started = time.time()
    prepare()
    runners = {method: train(method, work_dir, args.seed, args.steps) for method in CONFIGS}
    summary = {
        'supervised': {'mIoU': miou(runners['supervised'])},
        'pcr': {'teacher_mIoU': miou(runners['pcr']), 'student_mIoU': miou(runners['pcr'], 'student/mIoU')},
        'steps': runners['pcr'].max_iters, 'seed': args.seed,
    }
    draw_panel(runners, work_dir / 'panel.png')
    summary['seconds'] = round(time.time() - started)
    write_text(work_dir / 'summary.json', json.dumps(summary, indent=2) + '\n')
    gain = summary['pcr']['teacher_mIoU'] - summary['supervised']['mIoU']
    print(f'\n12 labeled images, 240 unlabeled ones, {summary["steps"]} steps each\n'
          f'  method                  val mIoU\n'
          f'  supervised only         {summary["supervised"]["mIoU"]:7.2f}\n'
          f'  PCR, student            {summary["pcr"]["student_mIoU"]:7.2f}\n'
          f'  PCR, teacher            {summary["pcr"]["teacher_mIoU"]:7.2f}   ({gain:+.2f})\n'
          f'  {summary["seconds"]} seconds; pictures in {work_dir / "panel.png"}\n'
          f'  predict with the trained model: {sys.executable} tools/test.py {CONFIGS["pcr"]} '
          f'{work_dir}/pcr/iter_{summary["steps"]}.pth --show-dir {work_dir}/predictions')


if __name__ == '__main__':
    main()

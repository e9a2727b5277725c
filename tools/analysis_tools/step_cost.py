"""Compares a training step of a method with its bare networks, and shows where the rest goes.

    python tools/analysis_tools/step_cost.py configs/pcr/pcr_lite0_camvid_24.py

Two things run in turns in one process on random images of the config's crop and counts, so that noise meets both:

- the step: data preprocessor, losses, backward, optimizer and EMA, with teacher and prototypes active;
- the bare networks: teacher forward, student forward and backward of a sum of logits on the same number of images in
  the same groups, optimizer. Nothing of that can be saved.

``ratio`` is the median of the first over the median of the second, ``ratio_of_fastest`` compares the fastest runs (less
sensitive to other jobs on the machine) and ``ratio_of_cpu_time`` the processor time (meaningful on CPUs). With a
``ChannelsLastHook`` in the config both run in that memory layout. Stages come from further, instrumented runs; each
excludes the stages that it calls. Weights are random and learning rates 0.
"""
import argparse
import json
import statistics
import time
from collections import defaultdict
from typing import Callable, Dict, List, Tuple

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, read_config
from mmseg_semi.engine.hooks import ChannelsLastHook
from mmseg_semi.models.ema import EMA
from mmseg_semi.models.segmentors import SemiEncoderDecoder
from mmseg_semi.registry import MODELS


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Stages:
    """Times calls; the time of a nested call counts for the inner one only."""

    def __init__(self) -> None:
        self.milliseconds: Dict[str, float] = defaultdict(float)
        self._inner = [0.]

    def run(self, name: str, function: Callable, *args, **kwargs):
        """Calls ``function`` and adds its own time to ``name``."""
        synchronize()
        self._inner.append(0.)
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            synchronize()
            spent = time.perf_counter() - start
            self.milliseconds[name] += 1000 * (spent - self._inner.pop())
            self._inner[-1] += spent

    def wrap(self, owner: object, method: str, name: str) -> None:
        """Replaces a method of one object by a timed one; ``delattr`` takes it back."""
        function = getattr(owner, method)
        setattr(owner, method, lambda *args, **kwargs: self.run(name, function, *args, **kwargs))


def random_batch(cfg: Config) -> dict:
    """A batch of :func:`semi_collate` at the config's crop, images uint8, labels of all classes and some 255.

    Where the config's preprocessor reads guides, every image has one.
    """
    height, width = cfg.crop_size
    classes = cfg.model.decode_head.num_classes
    guided = cfg.model.data_preprocessor.type == 'GuidedSegDataPreProcessor'
    groups = {}
    sampler = cfg.train_dataloader.sampler
    sampler = sampler.get('sampler', sampler)  # a ReplaySampler's own
    for name, count in zip(('labeled', 'unlabeled'), sampler.counts, strict=True):
        samples = []
        for i in range(count):
            sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
            if name == 'labeled':
                labels = torch.randint(classes + 1, (1, height, width))
                sample.gt_sem_seg = PixelData(data=torch.where(labels == classes, 255, labels))
            if guided:
                sample.guide = SegDataSample(metainfo=dict(img_shape=(height, width), guide_class=i % classes))
                sample.guide.gt_sem_seg = PixelData(data=torch.randint(classes, (1, height, width)))
                sample.guide.inputs = torch.randint(256, (3, height, width), dtype=torch.uint8)
            samples.append(sample)
        images = [torch.randint(256, (3, height, width), dtype=torch.uint8) for _ in range(count)]
        groups[name] = dict(inputs=images, data_samples=samples)
    return groups


class Bench:
    """The model of a config with everything that a step needs.

    Args:
        cfg (Config): Of a semi-supervised method.
        device (torch.device): Where it runs.

    Raises:
        TypeError: If the config's model is not a :class:`SemiEncoderDecoder`.
    """

    def __init__(self, cfg: Config, device: torch.device) -> None:
        self.model = MODELS.build(cfg.model)
        if not isinstance(self.model, SemiEncoderDecoder):
            raise TypeError(f'step_cost needs a semi-supervised config; its model.type is {cfg.model.type!r}')
        self.model.copy_student_to_teacher()
        self.model.to(device).train()
        hooks = [hook for hook in (*cfg.get('default_hooks', {}).values(), *cfg.get('custom_hooks', [])) if hook]
        self.channels_last = any(hook['type'] == 'ChannelsLastHook' for hook in hooks)
        if self.channels_last:
            ChannelsLastHook().before_train(self)  # reads no more of a runner than its model
        self.model.begin_train(cfg.train_cfg.get('max_iters', 10**6))
        if hasattr(self.model, 'prototype_head'):
            head = self.model.prototype_head
            head.set_bank(torch.randn_like(head.bank), torch.ones_like(head.class_valid))
        elif hasattr(self.model, 'prototypes'):
            self.model.prototypes.normal_()
            self.model.prototype_seen.fill_(True)
        self.optimizer: OptimWrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        for group in self.optimizer.param_groups:
            group['lr'] = 0.  # the sum of logits must not drive the weights away
        teacher_hook = next((hook for hook in hooks if hook['type'] == 'EMATeacherHook'), {})
        self.ema = EMA(self.model.teacher, self.model, teacher_hook.get('buffers', 'average'))
        self.batch = random_batch(cfg)
        self.iteration = max(self.model.start_iter, 1)
        self.teacher_shapes: List[Tuple[int, ...]] = []
        self.student_shapes: List[Tuple[int, ...]] = []
        self._record_shapes()
        self.images = {shape: torch.randn(shape, device=device)
                       for shape in self.teacher_shapes + self.student_shapes}

    def _record_shapes(self) -> None:
        for name, shapes in (('teacher_forward', self.teacher_shapes), ('student_forward', self.student_shapes)):
            forward = getattr(self.model, name)
            setattr(self.model, name, lambda images, forward=forward, shapes=shapes, **kwargs:
                    (shapes.append(tuple(images.shape)), forward(images, **kwargs))[1])
        self.step()
        del self.model.teacher_forward, self.model.student_forward

    def step(self) -> None:
        """One whole training step."""
        self.model.begin_iter(self.iteration, seed=0, rank=0)
        self.iteration += 1
        self.model.train_step(self.batch, self.optimizer)
        self.ema_update()

    def ema_update(self) -> None:
        """Its last part."""
        self.ema.update(0.99)

    def bare(self) -> None:
        """The networks alone, at the shapes of :meth:`step`."""
        with self.optimizer.optim_context(self.model):
            for shape in self.teacher_shapes:
                self.teacher_forward(self.images[shape])
            loss = sum(self.student_forward(self.images[shape]) for shape in self.student_shapes)
        self.optimizer.update_params(loss)

    @torch.no_grad()
    def teacher_forward(self, images: Tensor) -> None:
        """The teacher on normalized images."""
        teacher = self.model.teacher
        teacher.decode_head(teacher.extract_feat(images))
        if hasattr(teacher, 'representation_head'):
            teacher.representation_head(self.model.teacher_tap.pop())

    def student_forward(self, images: Tensor) -> Tensor:
        """The student, auxiliary and representation heads included, down to a scalar."""
        features = self.model.extract_feat(images)
        heads = [self.model.decode_head]
        if self.model.with_auxiliary_head:
            auxiliary = self.model.auxiliary_head
            heads += auxiliary if isinstance(auxiliary, torch.nn.ModuleList) else [auxiliary]
        total = sum(head(features).sum() for head in heads)
        if hasattr(self.model, 'representation_head'):
            total = total + self.model.representation_head(self.model.tap.pop()).sum()
        return total

    def stages(self, function: Callable[[], None]) -> Dict[str, float]:
        """Milliseconds of each stage of one call of :meth:`step` or :meth:`bare`."""
        stages, model = Stages(), self.model
        wraps = [(model.data_preprocessor, 'forward', 'preprocess'), (model, 'teacher_forward', 'teacher forward'),
                 (model, 'pseudo_label', 'pseudo label'), (model, 'strong_views', 'strong views'),
                 (model, 'student_views', 'student views'), (model, 'student_forward', 'student forward'),
                 (model, 'supervised_loss', 'supervised loss'), (model, 'unsupervised_loss', 'unsupervised loss'),
                 (model, 'extra_losses', 'extra losses'), (model, 'monitors', 'monitors'),
                 (self, 'teacher_forward', 'teacher forward'), (self, 'student_forward', 'student forward'),
                 (self.optimizer, 'backward', 'backward'), (self.optimizer, 'step', 'optimizer'),
                 (self.optimizer, 'zero_grad', 'optimizer'), (self, 'ema_update', 'ema')]
        for owner, method, name in wraps:
            stages.wrap(owner, method, name)
        try:
            stages.run('other', function)
        finally:
            for owner, method, _ in wraps:
                delattr(owner, method)
        return dict(stages.milliseconds)


def timed(function: Callable[[], None]) -> Tuple[float, float]:
    """Wall and processor seconds of a call."""
    synchronize()
    start = time.perf_counter(), time.process_time()
    function()
    synchronize()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def median_stages(runs: List[Dict[str, float]]) -> Dict[str, float]:
    """Median of each stage over runs."""
    return {name: statistics.median(run.get(name, 0.) for run in runs) for name in runs[0]}


def measure(bench: Bench, steps: int) -> dict:
    """Runs both in turns.

    Args:
        bench (Bench): What to measure.
        steps (int): Runs of each kind, after one for warming up.

    Returns:
        dict: ``ratio``, ``ratio_of_fastest``, ``ratio_of_cpu_time``, ``step_ms``, ``bare_ms``, ``inputs``, shapes of
        the batches that pass the teacher and the student, and ``stages``, by name ``ms`` in the step, ``bare_ms`` in
        the bare networks and ``share`` of the step.
    """
    timed(bench.step), timed(bench.bare)
    pairs = [(timed(bench.step), timed(bench.bare)) for _ in range(steps)]
    step, bare, step_cpu, bare_cpu = ([pair[kind][clock] for pair in pairs] for clock in (0, 1) for kind in (0, 1))
    instrumented = [(bench.stages(bench.step), bench.stages(bench.bare)) for _ in range(max(steps // 2, 1))]
    of_step, of_bare = (median_stages([pair[kind] for pair in instrumented]) for kind in (0, 1))
    total = sum(of_step.values())
    return dict(
        ratio=round(statistics.median(step) / statistics.median(bare), 4),
        ratio_of_fastest=round(min(step) / min(bare), 4),
        ratio_of_cpu_time=round(statistics.median(step_cpu) / statistics.median(bare_cpu), 4),
        step_ms=round(1000 * statistics.median(step), 2),
        bare_ms=round(1000 * statistics.median(bare), 2),
        inputs=dict(teacher=bench.teacher_shapes, student=bench.student_shapes),
        stages={name: dict(ms=round(ms, 2), bare_ms=round(of_bare.get(name, 0.), 2), share=round(ms / total, 4))
                for name, ms in of_step.items()})


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--steps', type=int, default=20, help='runs of each kind (default: 20)')
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--cfg-options', nargs='+', action=Options, default={}, metavar='KEY=VALUE')
    args = parser.parse_args()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    cfg = None
    try:
        cfg = read_config(args.config)
        cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        torch.manual_seed(0)
        bench = Bench(cfg, device)
    except MISTAKES as error:
        give_up(error, cfg)
    result = measure(bench, args.steps)

    layout = 'channels_last' if bench.channels_last else 'contiguous'
    name = torch.cuda.get_device_name() if device.type == 'cuda' else f'CPU, {torch.get_num_threads()} threads'
    print(f'{args.config} on {name}, {layout}: teacher on {bench.teacher_shapes}, student on {bench.student_shapes}')
    print(f'{"stage":20}{"step ms":>10}{"bare ms":>10}{"share":>8}')
    for stage, row in sorted(result['stages'].items(), key=lambda item: -item[1]['ms']):
        print(f'{stage:20}{row["ms"]:10.2f}{row["bare_ms"]:10.2f}{row["share"]:8.1%}')
    print(f'step {result["step_ms"]:.1f} ms / bare networks {result["bare_ms"]:.1f} ms = {result["ratio"]:.3f} '
          f'(fastest runs: {result["ratio_of_fastest"]:.3f}, processor time: {result["ratio_of_cpu_time"]:.3f})')
    if args.json:
        print(json.dumps(dict(result, config=args.config, device=name, layout=layout, steps=args.steps)))


if __name__ == '__main__':
    main()

"""One rank of the two-process tests: `python worker.py CASE OUT`, with RANK and WORLD_SIZE in the environment.

Trains a tiny network for three steps on this rank's half of a fixed batch and saves what became of it. GroupNorm
instead of BN, so that a union of batches and two halves of it mean the same; cases of batch norm compare the ranks.
"""
import copy
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import TINY  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.model import MMDistributedDataParallel  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from mmseg_semi.engine.hooks import EMATeacherHook, GuideTableHook, PrototypeInitHook  # noqa: E402
from mmseg_semi.models.ema import EMA, ema_decay  # noqa: E402
from mmseg_semi.models.segmentors import SemiEncoderDecoder, css  # noqa: E402
from mmseg_semi.registry import DATASETS, MODELS  # noqa: E402
from mmseg_semi.structures import View  # noqa: E402


def model_cfg(case: str) -> ConfigDict:
    cfg = ConfigDict(copy.deepcopy(TINY))
    # CSS: nothing confident on any rank in one case, by a threshold that no pixel reaches.
    threshold = 1.0 if case.startswith('css') and 'nothing on rank 1' in case else 0.0
    cfg.update(labeler=dict(type='ThresholdLabeler', threshold=threshold), auxiliary_head=None,
               branches=[dict(augments=[])])
    if case.startswith('css'):
        # The contrast draws from each rank's own pixels, so it has no union to equal and weighs 0; but in one case only
        # no hang counts, and one compares with the mean of the ranks.
        cfg.update(type='CSS', variant=case.split()[1].rstrip(','), num_anchors=8, num_negatives=8,
                   representation_head=dict(channels=8, out_channels=6, norm_cfg=dict(type='GN', num_groups=2)),
                   unsup_loss=dict(type='ImageWeightedCrossEntropy', threshold=0.3), joint_forward=False,
                   contrast_threshold=1. if 'nothing on rank 1' in case else 0., ramp_mult=-5,  # 1: labeled pixels only
                   ramp_iters=10 if ',' in case else 1,
                   warmup_iters=0, prototype_source='teacher' if case.startswith('css ori') else 'student')
        if case == 'css mix':  # as many valid pixels on both ranks, but not as many on which both spaces agree
            cfg.unsup_loss = dict(type='PseudoLabelCrossEntropy')
    elif case.startswith('cisc'):
        cfg.update(type=dict(pair='CISCPair', rectify='CISCRectify', online='CISCOnline')[case.split()[1]])
        cfg.data_preprocessor.type = 'GuidedSegDataPreProcessor'
        if cfg.type == 'CISCOnline':
            cfg.exclude = [0, 2, 3]  # one class to share: nothing to draw
        else:
            cfg.pop('labeler'), cfg.pop('branches'), cfg.pop('joint_forward')
        if cfg.type == 'CISCRectify':
            cfg.consistency_weight = 0.5
    elif case.startswith(('fixmatch', 'maskmatch')):
        cfg.labeler.threshold = 0.4
        cfg.branches = [dict(augments=[dict(type='CutMix', box='area_ratio', prob=1.0, per='image')])]
        if case.startswith('maskmatch'):
            cfg.labeler = dict(type='MultiScaleLabeler', labeler=cfg.labeler)
            cfg.branches.append(dict(augments=[dict(type='PatchMask', block_size=8)], update_bn=False))
    else:
        cfg.update(type='PCR', prototype_head=dict(num_prototypes=2, grid_size=8))
        if case == 'nothing on rank 1':
            cfg.unsup_loss = dict(type='PseudoLabelCrossEntropy', norm='kept')  # all its losses are means over kept
    norm = dict(type='GN', num_groups=2) if 'batch norm' not in case else dict(type='BN')
    if case.startswith('own'):
        cfg.teacher_bn = 'forward'
    cfg.backbone.norm_cfg, cfg.decode_head.norm_cfg = norm, norm
    return cfg


def sample(index: int, labeled: bool, case: str) -> dict:
    generator = torch.Generator().manual_seed(index)
    data = SegDataSample()
    if labeled:
        label = torch.randint(3, (1, 33, 33), generator=generator)  # class 3 is nowhere
        if 'one class per rank' in case:
            label.fill_(index // 2)
        if 'nothing on rank 1' in case and index >= 2:
            label.fill_(255)
        data.gt_sem_seg = PixelData(data=label)
    if case.startswith('cisc'):
        data.guide = SegDataSample(metainfo=dict(guide_class=-1 if index == 3 else 1))
        data.guide.gt_sem_seg = PixelData(data=torch.randint(3, (1, 33, 33), generator=generator))
        data.guide.inputs = torch.randint(256, (3, 33, 33), generator=generator, dtype=torch.uint8)
        data.set_metainfo(dict(table_row=index - 10))
        if case == 'cisc rectify' and not labeled:
            data.pseudo_sem_seg = PixelData(data=torch.randint(3, (1, 33, 33), generator=generator))
    return dict(inputs=torch.randint(256, (3, 33, 33), generator=generator, dtype=torch.uint8), data_samples=data)


def share(rank: int, world: int) -> range:
    """This rank's images."""
    return range(4)[rank * 4 // world:(rank + 1) * 4 // world]


def batch_of(rank: int, world: int, case: str) -> dict:
    from mmseg_semi.datasets import semi_collate
    mine = share(rank, world)
    unlabeled = [] if case == 'cisc pair' else [sample(i + 10, False, case) for i in mine]
    return semi_collate([sample(i, True, case) for i in mine] + unlabeled)


def table_hook(model) -> GuideTableHook:
    """A hook as after ``before_train``, with a table of four images."""
    hook = GuideTableHook()
    hook.model, hook.digest = model, ''
    hook.dataset = SimpleNamespace(table=torch.zeros(4, 4, dtype=torch.uint8))
    return hook


@DATASETS.register_module()
class LabeledSamples:
    """The labeled images, in an order that gives each rank those of one class to cluster."""

    def __init__(self, pipeline):
        self.samples = [sample(i, True, 'one class per rank') for i in (0, 2, 1, 3)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def cluster_prototypes(model) -> None:
    """What PrototypeInitHook does at the first semi-supervised iteration."""
    cfg = ConfigDict(train_dataloader=dict(dataset=dict(labeled=dict(type='LabeledSamples'))),
                     val_dataloader=dict(dataset=dict(pipeline=[])))
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo={}))
    hook = PrototypeInitHook()
    hook.model = model
    hook.before_train_iter(
        SimpleNamespace(iter=1, seed=0, cfg=cfg, train_dataloader=loader, logger=logging.getLogger()), 0)


def unsure_of_rank_1(model, mine: range) -> None:
    """Rejects the pseudo-labels of the images that rank 1 of 2 has."""
    labeler, sure = model.labeler, torch.tensor([i < 2 for i in mine])

    def rejecting(*args):
        target = labeler(*args)
        return replace(target, weight=target.weight * sure[:, None, None])

    model.labeler = rejecting


def draw_by_ranks(augment) -> None:
    """Lets one process draw for four images what two ranks draw for two each, both from the same generator."""
    draw = augment.draw

    def both(view, generator):
        state, params = generator.get_state(), []
        for first in (0, 2):
            generator.set_state(state)
            params.append(draw(View(view.images[first:first + 2], None), generator))
            if 'partner' in params[-1]:
                params[-1]['partner'] += first
        return {key: torch.cat([one[key] for one in params]) for key in params[0]}

    augment.draw = both


def loss_of_ranks(model, case: str, iteration: int) -> dict:
    """Mean losses of two ranks in one process: each draws from its own pixels, prototypes move by those of both."""
    update, pixels = css.update_prototypes, []
    old = new = [model.prototypes.clone(), model.prototype_seen.clone()]
    everything_finite = torch.zeros((), dtype=torch.bool)

    def collect(prototypes, seen, features, label, momentum):
        pixels.append((features.detach(), label))
        return everything_finite

    def insert(*_):
        model.prototypes.copy_(new[0]), model.prototype_seen.copy_(new[1])
        return everything_finite

    def run(rank, instead):
        css.update_prototypes = instead
        model.prototypes.copy_(old[0]), model.prototype_seen.copy_(old[1])
        model.begin_iter(iteration, seed=0, rank=0)
        losses = model(**model.data_preprocessor(batch_of(rank, 2, case), True), mode='loss')
        css.update_prototypes = update
        return losses

    for rank in (0, 1):
        run(rank, collect)
    new = [tensor.clone() for tensor in old]
    update(*new, *(torch.cat(maps) for maps in zip(*pixels, strict=True)), model.prototype_momentum)
    ranks = [run(rank, insert) for rank in (0, 1)]
    return {key: (value + ranks[1][key]) / 2 for key, value in ranks[0].items()}


def main(case: str, out: str) -> None:
    rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group('gloo')
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(model_cfg(case))
    model.init_weights()
    if case == 'cisc rectify':
        if rank == 0:
            torch.save(dict(state_dict=model.state_dict()), f'{out}.teacher.{world}')
        if world > 1:
            dist.barrier()
        model.load_teacher(f'{out}.teacher.{world}')
    if case.startswith('k-means'):
        cluster_prototypes(model)
    elif hasattr(model, 'prototype_head'):
        valid = torch.tensor([True, True, True, case != 'class without prototypes'])
        model.prototype_head.set_bank(torch.rand(model.prototype_head.bank.shape), valid)
    if case.startswith(('css', 'fixmatch', 'maskmatch')):
        model.decode_head.conv_seg.weight.data.normal_(0, 0.5)  # sure of something
        model.copy_student_to_teacher()
    for branch in getattr(model, 'branches', []) if world == 1 else []:
        for augment in branch.augments:
            draw_by_ranks(augment)
    if 'nothing on rank 1' in case and not case.startswith('css'):
        unsure_of_rank_1(model, share(rank, world))
    model.train()
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
    # Two ranks average their losses; where one has none, its divisor is missing in the union, whose losses are double.
    rate = 0.05 if case == 'nothing on rank 1' and world == 1 else 0.1
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    ema = EMA(model.teacher, model) if isinstance(model, SemiEncoderDecoder) else None
    teacher_hook = EMATeacherHook(0.9, 'own' if case.startswith('own') else 'average')
    if 'batch norm' in case:
        teacher_hook.model, teacher_hook.statistics = model, None  # as after before_train
        teacher_hook.ema = ema = EMA(model.teacher, model, teacher_hook.buffers)
    optimizer_steps = SimpleNamespace(should_update=lambda: True)
    hook, history, unsup = table_hook(model), [], []
    for iteration in range(1, 4):
        if case != 'cisc pair':
            model.begin_iter(iteration, seed=0, rank=0)  # the same picked pixels on both ranks, as in the union
        batch = batch_of(rank, world, case)
        if world == 1 and case == 'css mix, contrast':
            losses = loss_of_ranks(model, case, iteration)
        else:
            losses = wrapped(**model.data_preprocessor(batch, True), mode='loss')
        loss = sum(v for k, v in losses.items() if 'loss' in k)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if 'batch norm' in case:
            teacher_hook.after_train_iter(SimpleNamespace(optim_wrapper=optimizer_steps), 0)
        elif ema:
            ema.update(ema_decay(iteration - 1, 0.9))
        if case == 'cisc online':
            hook.after_train_iter(None, 0, batch)
        history.append(loss.detach())
        active = ('unsup', 'contrast') if case == 'css mix, contrast' else ('unsup', )
        unsup.append([v.item() for k, v in losses.items() if k.startswith(active)])
    checkpoint = dict(state_dict=model.state_dict())
    if case == 'cisc online':
        hook.before_save_checkpoint(None, checkpoint)
        _, rows, classes = checkpoint['guide_table']['pending']
        checkpoint['state_dict']['guide_table'] = checkpoint['guide_table']['table'].index_copy(0, rows, classes)
    torch.save(dict(state=checkpoint['state_dict'], loss=torch.stack(history), unsup=unsup), f'{out}.{rank}')


if __name__ == '__main__':
    main(*sys.argv[1:])

"""The DINOv2 configs hold the numbers of UniMatch V2 (baselines.md sections 0 and 6)."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.registry import DATASETS, MODELS

pytestmark = pytest.mark.usefixtures('data_roots')
CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
UNLABELED = {92: 10490, 183: 10399, 366: 10216, 732: 9850, 1464: 9118}
NAME = 'fixmatch_ema_dinov2_{}_dpt_voc_classic_{}.py'
SIZES = dict(small=(384, 64, 'checkpoints/dinov2_small.pth'), base=(768, 128, 'checkpoints/dinov2_base.pth'))
CHILD = """
_base_ = '{leaf}'
model = dict(
    data_preprocessor=dict(size=(42, 42)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
        img_size=42,
        out_indices=(0, 1, 2, 3)),
    decode_head=dict(in_channels=(16, ) * 4, embed_dims=16, post_process_channels=[8] * 4, channels=8))
labeled, unlabeled = _base_.train_dataloader.dataset.labeled, _base_.train_dataloader.dataset.unlabeled
labeled.pipeline[4].crop_size = unlabeled.pipeline[2].crop_size = (42, 42)
train_dataloader = dict(batch_size=4, sampler=dict(counts=(2, 2)), num_workers=0, persistent_workers=False,
                        dataset=dict(labeled=labeled, unlabeled=unlabeled))
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_iters=2)
param_scheduler = dict(end=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""


def public_weights():
    """Names and shapes of the public file, for the small network of CHILD; all values 0.25."""
    shapes = {'cls_token': (1, 1, 16), 'pos_embed': (1, 10, 16), 'mask_token': (1, 16),
              'patch_embed.proj.weight': (16, 3, 14, 14), 'patch_embed.proj.bias': (16, )}
    for i in range(4):
        for name, shape in (('attn.qkv', (48, 16)), ('attn.proj', (16, 16)), ('mlp.fc1', (32, 16)),
                            ('mlp.fc2', (16, 32)), ('norm1', (16, )), ('norm2', (16, ))):
            shapes.update({f'blocks.{i}.{name}.weight': shape, f'blocks.{i}.{name}.bias': shape[:1]})
        shapes.update({f'blocks.{i}.ls{j}.gamma': (16, ) for j in (1, 2)})
    shapes.update({'norm.weight': (16, ), 'norm.bias': (16, )})
    return {name: torch.full(shape, 0.25) for name, shape in shapes.items()}


def config(size='small', labels=92):
    return Config.fromfile(CONFIGS / 'fixmatch_ema' / NAME.format(size, labels))


def test_there_are_configs():
    found = {path.name for path in (CONFIGS / 'fixmatch_ema').glob('*dinov2*')}
    assert found == {NAME.format(size, labels) for size in SIZES for labels in UNLABELED}
    for path in found:
        assert len((CONFIGS / 'fixmatch_ema' / path).read_text().splitlines()) < 15


@pytest.mark.parametrize('labels', UNLABELED)
@pytest.mark.parametrize('size', SIZES)
def test_data_and_length(size, labels):
    cfg = config(size, labels)
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.sampler.counts) == (8, (4, 4))  # a GPU; 4 GPUs
    for part, name in ((loader.dataset.labeled, 'labeled'), (loader.dataset.unlabeled, 'unlabeled')):
        assert part.ann_file == f'splits/voc/classic/{labels}/{name}.txt'
        crop, = (t for t in part.pipeline if t.type == 'RandomCrop')
        scale, = (t for t in part.pipeline if t.type == 'RandomScale')
        assert tuple(crop.crop_size) == (518, 518) and tuple(scale.ratio_range) == (0.5, 2.0)
    assert tuple(cfg.model.data_preprocessor.size) == (518, 518)
    steps = 60 * (UNLABELED[labels] // 16)
    assert cfg.train_cfg.max_iters == cfg.param_scheduler.end == steps
    assert (cfg.param_scheduler.type, cfg.param_scheduler.power) == ('PolyLR', 0.9)


@pytest.mark.parametrize('size', SIZES)
def test_network_and_optimizer(size):
    cfg = config(size)
    width, channels, weights = SIZES[size]
    model_cfg = cfg.model
    assert model_cfg.backbone.init_cfg.checkpoint == weights
    assert (model_cfg.type, model_cfg.labeler.threshold) == ('SemiEncoderDecoder', 0.95)
    with torch.device('meta'):
        model = MODELS.build(model_cfg)
    assert model.backbone.embed_dims == width and len(model.backbone.layers) == 12
    assert model.backbone.out_indices == (2, 5, 8, 11) and model.decode_head.channels == channels
    assert model.backbone.pos_embed.shape == (1, 37**2 + 1, width)  # the grid of a crop: nothing is resized in training
    assert model.decode_head.loss_decode.loss_weight == 0.5
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    students = {name: p for name, p in model.named_parameters() if not name.startswith('teacher.')}
    assert set(rates) == {id(p) for p in students.values()}
    for name, p in students.items():
        assert rates[id(p)] == pytest.approx(5e-6 if name.startswith('backbone.') else 2e-4)
    assert {(g['weight_decay'], tuple(g['betas'])) for g in wrapper.optimizer.param_groups} == {(0.01, (0.9, 0.999))}


def test_test_images_have_sides_of_whole_patches_and_their_masks_do_not():
    dataset = DATASETS.build(config().val_dataloader.dataset)
    sample = dataset[0]
    assert sample['inputs'].shape == (3, 70, 84)  # of an image of 60 x 83
    assert sample['data_samples'].gt_sem_seg.data.shape == (1, 60, 83)
    assert sample['data_samples'].ori_shape == (60, 83)


def test_predictions_have_the_size_of_the_image():
    cfg = config()
    cfg.model.backbone.update(arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
                              out_indices=(0, 1, 2, 3), init_cfg=None)
    cfg.model.decode_head.update(in_channels=(16, ) * 4, embed_dims=16, post_process_channels=[8] * 4, channels=8)
    model = MODELS.build(cfg.model).eval()
    sample = DATASETS.build(cfg.val_dataloader.dataset)[0]
    result, = model.test_step(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))
    assert result.pred_sem_seg.data.shape == (1, 60, 83)


@pytest.mark.slow
def test_from_the_public_file_to_a_tested_checkpoint(tmp_path):
    """The commands of docs/backbones.md on a DINOv2 of four thin blocks: convert, train two steps, test."""
    leaf = CONFIGS / 'fixmatch_ema' / NAME.format('small', 92)
    (tmp_path / 'child.py').write_text(CHILD.format(leaf=leaf))
    torch.save(public_weights(), tmp_path / 'public.pth')
    env = dict(os.environ, PYTHONPATH=str(CONFIGS.parent), OMP_NUM_THREADS='1')

    def run(tool, *words):
        command = [sys.executable, '-W', 'ignore', str(CONFIGS.parent / 'tools' / tool), *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, text=True, timeout=300, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    run('model_converters/dinov2.py', 'child.py', 'public.pth')
    out = run('train.py', 'child.py')
    assert 'checkpoints/dinov2_small.pth' in out and 'size mismatch' not in out
    assert 'student/mIoU' in out
    state = torch.load(tmp_path / 'work_dirs/child/iter_2.pth', weights_only=False)['state_dict']
    # Two steps at 5e-6: still the public weights.
    assert state['backbone.layers.1.attn.gamma1.weight'].allclose(torch.tensor(0.25), atol=1e-3)
    assert 'mIoU' in run('test.py', 'child.py', 'work_dirs/child/iter_2.pth')

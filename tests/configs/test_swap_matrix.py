"""Every method of `configs/swap` on every network there: a training step, a prediction, save and load, export.

`python tests/configs/test_swap_matrix.py` prints the table of docs/backbones.md.
"""
import contextlib
import functools
import importlib
import io
import re
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.structures import SegDataSample

import mmseg_semi  # noqa: F401 (registers the parts that configs name)
from mmseg_semi.datasets import semi_collate
from mmseg_semi.models.feature_tap import FeatureTap
from mmseg_semi.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
CLASSES = 4
# Method -> its file in configs/_base_. Another method joins the matrix with a line here and its leaves.
METHODS = dict(pcr='semi/pcr', css_mix='semi/css', maskmatch='semi/maskmatch', cisc_r='self_training/cisc_r')

RESNET = {'backbone.base_channels': 8, 'backbone.stem_channels': 8, 'decode_head.channels': 16}
SINGLE = {**RESNET, 'decode_head.in_channels': 256}
SEP_ASPP = {**SINGLE, 'decode_head.c1_in_channels': 32, 'decode_head.c1_channels': 8}
VIT = {'backbone.arch': dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
       'backbone.out_indices': (0, 1, 2, 3), 'backbone.img_size': 64, 'decode_head.channels': 16}
PYRAMID = {'decode_head.in_channels': [16] * 4}
STAGES = {'decode_head.channels': 16, 'decode_head.in_channels': [8, 16, 32, 64]}
DPT = {**VIT, 'backbone.img_size': 56, 'decode_head.embed_dims': 16, 'decode_head.in_channels': (16, ) * 4,
       'decode_head.post_process_channels': [8, 8, 16, 16]}
# Network -> what makes it small. Depths and widths shrink, kinds of layers and connections stay.
NETWORKS = {
    'r50_fcn': SINGLE,
    'r50_psp': SINGLE,
    'r50_aspp': SINGLE,
    'r50_sep_aspp': SEP_ASPP,
    'r50_upernet': {**RESNET, 'decode_head.in_channels': [32, 64, 128, 256]},
    'r101_sep_aspp': SEP_ASPP,
    'r50_torchvision_sep_aspp': SEP_ASPP,
    'r101_torchvision_sep_aspp': SEP_ASPP,
    'hrnet18_fcn': {
        **{f'backbone.extra.stage{i}.num_modules': 1 for i in (2, 3, 4)},
        **{f'backbone.extra.stage{i}.num_blocks': (1, ) * i for i in (1, 2, 3, 4)},
        'backbone.extra.stage1.num_channels': (8, ),
        **{f'backbone.extra.stage{i}.num_channels': (4, 8, 12, 16)[:i] for i in (2, 3, 4)},
        'decode_head.in_channels': [4, 8, 12, 16], 'decode_head.channels': 40},
    'mobilenet_v2_sep_aspp': {
        'backbone.widen_factor': 0.25, 'decode_head.in_channels': 80, 'decode_head.c1_in_channels': 8,
        'decode_head.channels': 16, 'decode_head.c1_channels': 8},
    'lite0_sep_aspp': {'decode_head.channels': 16, 'decode_head.c1_channels': 8},
    'convnext_tiny_upernet': {
        **STAGES, 'backbone.arch': dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])},
    'swin_tiny_upernet': {
        **STAGES, 'backbone.embed_dims': 8, 'backbone.depths': (2, 2, 2, 2), 'backbone.num_heads': (1, 2, 4, 8)},
    'mit_b0_segformer': {
        'backbone.embed_dims': 4, 'backbone.num_layers': [1, 1, 1, 1], 'decode_head.in_channels': [4, 8, 20, 32],
        'decode_head.channels': 16},
    'segnext_tiny_ham': {
        'backbone.embed_dims': [8, 16, 24, 32], 'backbone.depths': [1, 1, 1, 1],
        'decode_head.in_channels': [16, 24, 32], 'decode_head.channels': 32, 'decode_head.ham_channels': 32},
    'deit_small_dpt': {**DPT, 'backbone.img_size': 64},
    'deit_small_upernet': {**VIT, **PYRAMID, 'neck.in_channels': [16] * 4, 'neck.out_channels': 16},
    'mae_base_upernet': {**VIT, **PYRAMID, 'neck.embed_dim': 16},
    'beit_base_upernet': {
        **VIT, **PYRAMID, 'neck.embed_dim': 16, 'test_cfg.crop_size': (64, 64), 'test_cfg.stride': (32, 32),
        'data_preprocessor.test_cfg.size': (64, 64)},
    'dinov2_small_linear': {
        **VIT, 'backbone.img_size': 56, 'backbone.out_indices': (3, ), 'decode_head.in_channels': 16},
    'dinov2_small_dpt': DPT,
    'dinov2_base_dpt': DPT,
}
# The pairs that cannot work, and a part of the reason given.
REFUSED = {(method, 'beit_base_upernet'): 'fits one image size' for method in ('maskmatch', 'cisc_r')}
REFUSED_NETWORKS = {'r50_ocr': 'cascades are not supported', 'pidnet_small': 'returns several maps'}
# Files for programs without mmseg, by tools/export.py, and a part of the reason where there can be none.
GRAPHS = ('onnx', 'torchscript', 'torch.export')
GRAPHS_REFUSED = {
    **{(kind, 'segnext_tiny_ham'): 'draws random numbers' for kind in GRAPHS},
    **{(kind, 'beit_base_upernet'): 'cannot take images' for kind in GRAPHS},
    **{('torch.export', network): 'Guard failed' for network in (
        'deit_small_dpt', 'deit_small_upernet', 'mae_base_upernet', 'dinov2_small_linear', 'dinov2_small_dpt',
        'dinov2_base_dpt')}}
# Not ended after many minutes, and a refusal after one and a half.
GRAPHS_SLOW = {('torch.export', 'swin_tiny_upernet'), ('torch.export', 'lite0_sep_aspp')}
PAIRS = [(method, network) for network in NETWORKS for method in METHODS if (method, network) not in REFUSED]
# Each network by one method and each method on a third of the networks; the rest is for the slow run.
FAST = {(list(METHODS)[i % len(METHODS)], network) for i, network in enumerate(NETWORKS)}


def small(cfg, network):
    """The config with a network of some thousand parameters, without weights to load, for crops of 64 or 56."""
    model = cfg.model
    assert CLASSES < model.decode_head.num_classes
    for name, value in {**NETWORKS[network], 'decode_head.num_classes': CLASSES}.items():
        *parts, last = name.split('.')
        functools.reduce(lambda node, part: node[part], parts, model)[last] = value
    model.backbone.init_cfg = None
    side = model.backbone.get('img_size', 64)
    model.data_preprocessor.size = (side, side)
    if 'rectify' in cfg:  # the model of CISC-R's retrainings, as its plan makes it
        model.update(cfg.rectify, type='CISCRectify', guidance=cfg.guidance)
        model.data_preprocessor.type = 'GuidedSegDataPreProcessor'
        return cfg, side
    mask = model.branches[-1].augments[-1]
    if mask.type == 'PatchMask':
        mask.block_size = 16  # a crop of one cell is refused
    model.start_iter = 0
    inner = model.labeler.get('labeler', model.labeler)
    inner.threshold = 0.2  # below what untrained networks are sure of, so that pseudo-labels train
    if 'threshold' in model.unsup_loss:
        model.unsup_loss.threshold = 0.2
    return cfg, side


def sample(height, width, seed, mask=None):
    generator = torch.Generator().manual_seed(seed)
    data = SegDataSample(metainfo=dict(ori_shape=(height, width), img_shape=(height, width)))
    if mask:
        data.set_field(PixelData(data=torch.randint(CLASSES, (1, height, width), generator=generator)), mask)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    return dict(inputs=image, data_samples=data)


def draw_batch(side, guided):
    """Two labeled and two unlabeled images, one of each smaller than the crop; with guides as CISC-R reads them."""
    samples = [sample(side, side - 5 * (i % 2), i, 'gt_sem_seg' if i < 2 else 'pseudo_sem_seg' if guided else None)
               for i in range(4)]
    for i, one in enumerate(samples[2:] if guided else ()):
        guide = sample(side, side, 10 + i, 'gt_sem_seg')
        one['data_samples'].guide = guide['data_samples']
        one['data_samples'].guide.inputs = guide['inputs']
        one['data_samples'].guide.set_metainfo(dict(guide_class=i, has_guide=True, guide_id=str(i)))
    return semi_collate(samples)


def build(cfg):
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def predict(model, side):
    """Logits and labels of an image whose sides fit no patch."""
    torch.manual_seed(0)  # SegNeXt's decoder starts its bases at random, so nobody else may draw before it
    model.eval_with = 'teacher'
    one = sample(side - 14, side + 3, 9)
    result, = model.eval().test_step(dict(inputs=[one['inputs']], data_samples=[one['data_samples']]))
    assert result.pred_sem_seg.data.shape == (1, side - 14, side + 3)
    assert result.seg_logits.data.isfinite().all()
    return result.seg_logits.data


def train_one_step(model, cfg, side):
    """One step of the config's own optimizer; returns what it logs and the parameters that got no gradient."""
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    if hasattr(model, 'prototype_head'):
        model.prototype_head.set_bank(torch.randn(model.prototype_head.bank.shape), torch.ones(CLASSES) > 0)
    if hasattr(model, 'prototypes'):
        model.prototypes.normal_()
        model.prototype_seen.fill_(True)
    guided = hasattr(model, 'load_teacher')
    if guided:
        with tempfile.TemporaryDirectory() as folder:
            torch.save(dict(state_dict=model.state_dict()), f'{folder}/first_stage.pth')
            model.load_teacher(f'{folder}/first_stage.pth')
    else:
        model.begin_train(10)
    model.train()
    model.begin_iter(0, seed=0, rank=0)
    log = model.train_step(draw_batch(side, guided), wrapper)
    optimized = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    students = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert optimized == {id(p) for p in students.values()}, 'the optimizer holds the student and nothing else'
    return log, {name for name, p in students.items() if not wrapper.optimizer.state[p]}


@functools.cache
def exporter(module):
    """A module of tools/export.py."""
    sys.path.insert(0, str(CONFIGS.parent / 'tools'))
    try:
        return importlib.import_module(f'model_export.{module}')
    finally:
        sys.path.pop(0)


def take(cfg, state):
    """The trained network, as tools/export.py reads it."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(dict(state_dict=state), f'{folder}/trained.pth')
        return exporter('source').take(cfg, 'the leaf', f'{folder}/trained.pth', None)


def export_plain(cfg, state):
    """The network that stock mmseg builds from what tools/export.py writes."""
    taken = take(cfg, state)
    plain_cfg, _, files = exporter('plain').plain_config(taken)
    for name, text in files.items():  # as mmengine imports them
        exec(compile(text, name, 'exec'), {'__name__': name})
    model = MODELS.build(plain_cfg.model)
    assert type(model) is EncoderDecoder and type(model.data_preprocessor) is SegDataPreProcessor
    model.load_state_dict(taken.network.state_dict())
    return model


def run_pair(method, network):
    """Raises if the pair does not work."""
    if network.startswith('lite0'):
        pytest.importorskip('timm')
    cfg, side = small(Config.fromfile(CONFIGS / f'swap/{method}_{network}.py'), network)
    model = build(cfg)
    model.init_weights()
    before = {name: p.clone() for name, p in model.named_parameters()}
    log, idle = train_one_step(model, cfg, side)
    assert all(value.isfinite().all() for value in log.values())
    assert log['loss'] > 0 and log['rectified.loss_ce' if method == 'cisc_r' else 'unsup_0.loss_ce'] > 0
    assert idle == set()
    moved = {name.split('.')[0] for name, p in model.named_parameters() if not p.equal(before[name])}
    assert {'backbone', 'decode_head'} <= moved and 'teacher' not in moved
    if getattr(model, 'tap', None):
        assert model.tap.channels > CLASSES  # a feature, not the logits

    # Save and load; the student is another network than the teacher by now, so a mix-up would show.
    logits = predict(model, side)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = build(cfg)
    again.load_state_dict(state)
    assert predict(again, side).equal(logits)

    torch.testing.assert_close(predict(export_plain(cfg, state), side), logits, rtol=0,
                               atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize('method,network', [
    pytest.param(*pair, id='-'.join(pair), marks=() if pair in FAST else pytest.mark.slow) for pair in PAIRS])
def test_pair(method, network):
    run_pair(method, network)


def export_graph(kind, network):
    """Writes one file of an untrained network, which compares it with PyTorch; returns what is wrong, or nothing."""
    cfg, _ = small(Config.fromfile(CONFIGS / f'swap/pcr_{network}.py'), network)
    graph = exporter('graph')
    with tempfile.TemporaryDirectory() as folder:
        try:
            graph.EXPORTERS[kind](take(cfg, build(cfg).state_dict()), Path(folder) / 'net.pt2')
        except ValueError as error:
            return str(error)
    return ''


@pytest.mark.slow
@pytest.mark.parametrize('kind,network', [  # TorchScript is fast; of the others each does a third of the networks
    (kind, network) for i, network in enumerate(NETWORKS) for j, kind in enumerate(GRAPHS)
    if (kind == 'torchscript' or (i + j) % 3 == 0) and (kind, network) not in GRAPHS_SLOW])
def test_graph(kind, network):
    if network.startswith('lite0'):
        pytest.importorskip('timm')
    problem, expected = export_graph(kind, network), GRAPHS_REFUSED.get((kind, network), '')
    assert expected in problem and bool(problem) == bool(expected), problem


@pytest.mark.slow
@pytest.mark.parametrize('network', ['r50_sep_aspp', 'convnext_tiny_upernet', 'dinov2_small_dpt'])
def test_mmseg_alone_loads_a_plain_export(network, tmp_path):
    """The exporter lets a process load and run the pair in which mmseg_semi cannot be imported."""
    cfg, _ = small(Config.fromfile(CONFIGS / f'swap/pcr_{network}.py'), network)
    exporter('plain').export_plain(take(cfg, build(cfg).state_dict()), tmp_path / 'plain')
    assert {'config.py', 'checkpoint.pth'} <= {path.name for path in (tmp_path / 'plain').iterdir()}


@pytest.mark.parametrize('network', [name for name in NETWORKS if name.startswith(('deit', 'mae', 'beit', 'dinov2'))])
def test_test_images_hold_whole_patches(network):
    """Patch embeddings pad what is left over, and the logits, resized without that padding, would be stretched."""
    model = Config.fromfile(CONFIGS / f'swap/pcr_{network}.py').model
    one = sample(375, 499, 0)
    data = dict(inputs=[one['inputs']], data_samples=[one['data_samples']])
    images = MODELS.build(model.data_preprocessor)(data, False)['inputs']
    assert {side % model.backbone.patch_size for side in images.shape[2:]} == {0}


@pytest.mark.slow
@pytest.mark.parametrize('network', NETWORKS)
def test_full_size(network):
    """Widths and depths as they are, on the device whose tensors have no values."""
    cfg = Config.fromfile(CONFIGS / f'_base_/backbones/{network}.py')
    side = cfg.model.backbone.get('img_size', 512)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).to('meta').eval()
    tap = FeatureTap(model.decode_head)
    with torch.device('meta'):
        logits = model.decode_head(model.extract_feat(torch.empty(2, 3, side, side)))
    assert logits.shape[:2] == (2, 21) and min(logits.shape[2:]) >= side // 16
    assert tap.pop().shape[:2] == (2, tap.channels)


@pytest.mark.parametrize('method', METHODS)
def test_the_leaves_are_the_matrix_and_short(method):
    found = {path.stem.removeprefix(f'{method}_'): path for path in (CONFIGS / 'swap').glob(f'{method}_*.py')}
    assert set(found) == {network for one, network in PAIRS if one == method}
    for path in found.values():
        assert len(path.read_text().splitlines()) <= 12, path.name


@pytest.mark.parametrize('network', [network for method, network in PAIRS if method == 'css_mix'])
def test_all_new_heads_learn_at_one_rate(network):
    """CSS's representation head starts from random weights, as the decode head does."""
    keys = Config.fromfile(CONFIGS / f'swap/css_mix_{network}.py').optim_wrapper.get('paramwise_cfg', {}).get(
        'custom_keys', {})
    assert keys.get('representation_head') == keys.get('decode_head')


def test_the_lines_of_the_page(tmp_path):
    """The configs that docs/backbones.md shows are children of configs/swap and build."""
    page = (CONFIGS.parent / 'docs/backbones.md').read_text()
    snippets = re.findall(r'```python\n(.*?)```', page, re.S)
    assert len(snippets) == 2
    for snippet, (kind, part) in zip(snippets, (('PSPHead', 'decode_head'), ('SwinTransformer', 'backbone')),
                                     strict=True):
        path = tmp_path / 'child.py'
        path.write_text(snippet.replace("'./", f"'{CONFIGS}/swap/"))
        model = Config.fromfile(path).model
        model.backbone.init_cfg = None
        assert type(getattr(MODELS.build(model), part)).__name__ == kind


def test_maskmatch_trains_beit_at_one_scale(tmp_path):
    leaf = (CONFIGS / 'swap/maskmatch_mae_base_upernet.py').read_text().replace("'../", f"'{CONFIGS}/")
    leaf = leaf.replace('mae_base', 'beit_base').replace(
        'model = ', '_base_.semi.labeler.scales = (1.0, )\nmodel = ')
    (tmp_path / 'leaf.py').write_text(leaf)
    cfg, side = small(Config.fromfile(tmp_path / 'leaf.py'), 'beit_base_upernet')
    log, idle = train_one_step(build(cfg), cfg, side)
    assert log['unsup_1.loss_ce'] > 0 and not idle


def refusal(method, network):
    """What the method says of a network it cannot train."""
    cfg = Config.fromfile(CONFIGS / f'_base_/backbones/{network}.py')
    base = Config.fromfile(CONFIGS / f'_base_/{METHODS[method]}.py')
    semi = base.get('semi') or dict(base.rectify, type='CISCRectify', data_preprocessor=dict(
        cfg.model.data_preprocessor, type='GuidedSegDataPreProcessor', size=(64, 64)))
    model = dict(cfg.model)
    head = model['decode_head']
    if isinstance(head, dict):
        semi.pop('decode_head', None)
    with pytest.raises(ValueError) as error:
        MODELS.build({**model, **semi, 'decode_head': head})
    return str(error.value)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('network', REFUSED_NETWORKS)
def test_networks_that_no_method_trains(method, network):
    assert REFUSED_NETWORKS[network] in refusal(method, network)


@pytest.mark.parametrize('pair', REFUSED, ids='-'.join)
def test_pairs_that_cannot_work(pair):
    assert REFUSED[pair] in refusal(*pair)


@pytest.mark.parametrize('network', REFUSED_NETWORKS)
def test_mmseg_itself_builds_the_refused_networks(network):
    cfg = Config.fromfile(CONFIGS / f'_base_/backbones/{network}.py')
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        assert MODELS.build(cfg.model).num_classes == 21


def is_refused(method, network):
    return network in REFUSED_NETWORKS or (method, network) in REFUSED


def rows_of(page, columns, networks):
    """The rows of a page's table, as lists of cells."""
    rows = [line.strip('| \n').split(' | ') for line in (CONFIGS.parent / page).open()]
    begin = rows.index(['network', *columns]) + 2
    return rows[begin:begin + len(networks)]


def test_the_table_of_the_page():
    networks = (*NETWORKS, *REFUSED_NETWORKS)
    assert rows_of('docs/backbones.md', METHODS, networks) == [
        [f'`{network}`', *('refused' if is_refused(method, network) else 'works' for method in METHODS)]
        for network in networks]


def test_the_table_of_files():
    assert rows_of('docs/export.md', GRAPHS, NETWORKS) == [
        [f'`{network}`', *('too slow' if (kind, network) in GRAPHS_SLOW else
                           'refused' if (kind, network) in GRAPHS_REFUSED else 'works' for kind in GRAPHS)]
        for network in NETWORKS]


def print_row(network, cells):
    print(f"| {network} | {' | '.join(cells)} |", flush=True)


def main():
    print_row('network', METHODS)
    print_row('---', ['---'] * len(METHODS))
    for network in (*NETWORKS, *REFUSED_NETWORKS):
        cells = []
        for method in METHODS:
            refused = is_refused(method, network)
            with contextlib.redirect_stdout(io.StringIO()):  # mmseg's layer-wise rates are printed
                (refusal if refused else run_pair)(method, network)
            cells.append('refused' if refused else 'works')
        print_row(f'`{network}`', cells)


def main_graphs():
    print_row('network', GRAPHS)
    print_row('---', ['---'] * len(GRAPHS))
    for network in NETWORKS:
        with contextlib.redirect_stdout(io.StringIO()):
            problems = [None if (kind, network) in GRAPHS_SLOW else export_graph(kind, network) for kind in GRAPHS]
        print_row(f'`{network}`', ['too slow' if problem is None else 'refused' if problem else 'works'
                                   for problem in problems])
        for problem in filter(None, problems):
            print(problem, file=sys.stderr)


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    init_default_scope('mmseg')
    MMLogger.get_instance('matrix', log_level='ERROR')
    main_graphs() if sys.argv[1:] == ['--graphs'] else main()

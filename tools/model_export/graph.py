"""One file from pixels to logits, for onnxruntime, torch or libtorch; it runs without mmseg and mmseg_semi."""
import contextlib
import copy
import json
import logging
import os
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import transformer
from mmseg.models import EncoderDecoder
from mmseg.models.backbones.swin import ShiftWindowMSA
from mmseg.models.utils import Upsample, embed
from torch import Tensor, nn

from .output import staged
from .parts import name_of
from .source import ExportError, Source, channels_of, class_names, first_line, test_images, whole_logits

BATCHES, SIZE = (1, 3), (96, 128)
# The second image size: an odd one, or for networks that cannot take it, one that many strides divide.
OTHER_SIZES = ((97, 75), (64, 192))
TOLERANCE = 1e-3  # of the largest logit
AGREEMENT = 0.999  # of the labels
OPSET = 17
# Of test pipelines: what a program that has an image in memory has done already, and what is for masks.
WITHOUT_EFFECT = ('LoadImageFromFile', 'LoadAnnotations', 'CheckSegMap', 'PackSegInputs')
PADDINGS = (transformer.AdaptivePadding, embed.AdaptivePadding)

Runner = Callable[[Tensor], Tensor]


class PixelsToLogits(nn.Module):
    """Images [N, C, H, W] float32 in 0..255, channels as :func:`channel_order` says, to logits at their size."""

    def __init__(self, network: EncoderDecoder) -> None:
        super().__init__()
        self.network = _traceable(copy.deepcopy(network))
        preprocessor = getattr(network.data_preprocessor, 'plain', network.data_preprocessor)
        one = torch.ones(channels_of(network), 1, 1)
        self.register_buffer('mean', getattr(preprocessor, 'mean', 0 * one))
        self.register_buffer('std', getattr(preprocessor, 'std', one))

    def forward(self, image: Tensor) -> Tensor:
        """Normalizes, predicts, resizes."""
        logits = self.network.decode_head(self.network.extract_feat((image - self.mean) / self.std))
        return F.interpolate(logits, size=image.shape[2:], mode='bilinear', align_corners=self.network.align_corners)

    def labels(self, logits: Tensor) -> Tensor:
        """Classes [N, H, W] of the logits, as mmseg decides them."""
        if self.network.out_channels == 1:
            return logits[:, 0].sigmoid() > self.network.decode_head.threshold
        return logits.argmax(1)


class GridPool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` into k x k cells as two products of matrices, which exporters know at every size."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        """Pools [N, C, H, W] to [N, C, k, k]."""
        return self._mean(x[0, 0, :, 0]) @ x @ self._mean(x[0, 0, 0]).t()

    def _mean(self, side: Tensor) -> Tensor:
        """[k, n] whose row i averages pixels floor(i n / k) to ceil((i + 1) n / k) of a side [n]."""
        ones = torch.ones_like(side)
        pixel, cell = ones.cumsum(0) - 1, torch.arange(self.cells, dtype=side.dtype, device=side.device)[:, None]
        # Whole numbers stay whole in spite of rounding.
        start = (cell * ones.sum() / self.cells + 1e-4).floor()
        end = ((cell + 1) * ones.sum() / self.cells - 1e-4).ceil()
        return ((pixel >= start) & (pixel < end)).to(side.dtype) / (end - start)


class PlainPadding(nn.Module):
    """``AdaptivePadding`` of patch embeddings without its branch, of which a trace would keep one side."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.corner, self.stride = original.padding == 'corner', original.stride
        self.overlap = overlap(original)

    def forward(self, x: Tensor) -> Tensor:
        """Pads [N, C, H, W] at the bottom and the right, or at all sides, until the kernel covers it."""
        high, wide = (-side % stride + more
                      for side, stride, more in zip(x.shape[-2:], self.stride, self.overlap, strict=True))
        left, top = (0, 0) if self.corner else (wide // 2, high // 2)
        return F.pad(x, [left, wide - left, top, high - top])


class PlainUpsample(nn.Module):
    """mmseg's ``Upsample`` by a whole factor, without its ``int``, which a trace takes for a constant."""

    def __init__(self, original: Upsample) -> None:
        super().__init__()
        self.factor, self.mode, self.align_corners = int(original.scale_factor), original.mode, original.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Resizes [N, C, H, W] to [N, C, factor * H, factor * W]."""
        size = [side * self.factor for side in x.shape[-2:]]
        return F.interpolate(x, size=size, mode=self.mode, align_corners=self.align_corners)


def window_reverse(windows: Tensor, height: int, width: int) -> Tensor:
    """Swin's windows [n * N, w, w, C] to maps [N, height, width, C]; the original computes N by ``int``."""
    side = windows.shape[1]
    grid = windows.view(-1, height // side, width // side, side, side, windows.shape[-1])
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


def overlap(padding: nn.Module) -> List[int]:
    """By how much kernels overlap in both directions."""
    return [(kernel - 1) * dilation + 1 - stride
            for kernel, dilation, stride in zip(padding.kernel_size, padding.dilation, padding.stride, strict=True)]


def _traceable(module: nn.Module) -> nn.Module:
    """Replaces, in place, the parts that exporters know at one size only by ones that do the same."""
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int) and child.output_size > 1:
            setattr(module, name, GridPool(child.output_size))
        elif isinstance(child, PADDINGS) and min(overlap(child)) >= 0:
            setattr(module, name, PlainPadding(child))
        elif isinstance(child, Upsample) and isinstance(child.scale_factor, float) and child.scale_factor.is_integer():
            setattr(module, name, PlainUpsample(child))
        else:
            if isinstance(child, ShiftWindowMSA):
                child.window_reverse = window_reverse
            _traceable(child)
    return module


class Check(NamedTuple):
    """What comparing with PyTorch gave: over all cases, in logits, in share of pixels."""
    difference: float
    largest: float
    agreement: float
    sizes: str


def channel_order(source: Source) -> str:
    """Order of the channels in the file's input; the loaders of mmseg deliver BGR."""
    if channels_of(source.network) != 3:
        return 'as the loader delivers them'
    return 'RGB' if _flips(source) else 'BGR'


def export_onnx(source: Source, out: Path) -> List[str]:
    """Writes an ONNX file with dynamic batch and size.

    torch's older exporter comes first: it is much faster. Where its file fails on another size, because the network
    computes with sizes in Python, the newer one is tried.

    Args:
        source (Source): The network.
        out (Path): A file that does not exist yet.

    Returns:
        list[str]: What to tell the user.

    Raises:
        ImportError: If onnx or onnxruntime is missing.
        ExportError: If no exporter makes a file that does what PyTorch does; says why.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{error}; run: pip install -r requirements/export.txt') from error
    net, failures = _prepare(source), []
    with staged(out) as path:
        for dynamo in (False, True):
            try:
                _write_onnx(net, path, dynamo)
                found = _check(net, _onnx_runner(path))
            except Exception as error:  # the exporters and onnxruntime raise kinds of their own
                failures.append(f"torch's {'newer' if dynamo else 'older'} exporter: {first_line(error)}")
                continue
            model = onnx.load(path)
            onnx.helper.set_model_props(model, _properties(source))
            onnx.save(model, path)
            onnx.checker.check_model(path)
            return _notes(source, found, 'onnxruntime')
        raise ExportError(f'no ONNX file of {_parts(source)} does what PyTorch does. {"; ".join(failures)}')


def export_torchscript(source: Source, out: Path) -> List[str]:
    """Writes a traced TorchScript file; arguments, result and errors as :func:`export_onnx`."""
    net = _prepare(source)
    with staged(out) as path:
        try:
            traced = torch.jit.trace(net, _example(net), check_trace=False)
            torch.jit.save(traced, path, _extra_files={'properties.json': json.dumps(_properties(source))})
            found = _check(net, torch.jit.load(path, map_location='cpu'))
        except OSError:
            raise  # such as a full disk
        except Exception as error:  # tracing runs the network, which raises whatever its parts do
            raise ExportError(f'no TorchScript file of {_parts(source)} does what PyTorch does: '
                              f'{first_line(error)}') from error
    return _notes(source, found, 'torch.jit.load')


def export_torch_export(source: Source, out: Path) -> List[str]:
    """Writes an archive of torch.export (``.pt2``); arguments, result and errors as :func:`export_onnx`."""
    if not hasattr(torch.export.Dim, 'DYNAMIC'):
        raise ImportError(f'torch.export needs torch >= 2.6 for sizes that vary, found {torch.__version__}; the kind '
                          'torchscript works with it')
    if out.suffix != '.pt2':
        raise ExportError(f'--out {out}: torch.export writes archives, expected a name that ends in .pt2')
    net = _prepare(source)
    with staged(out) as path:
        try:
            with _quiet():
                program = torch.export.export(net, (_example(net), ), dynamic_shapes=_dynamic_shapes(), strict=False)
                torch.export.save(program, path, extra_files={'properties.json': json.dumps(_properties(source))})
                loaded = torch.export.load(path).module()
            found = _check(net, loaded)
        except OSError:
            raise  # such as a full disk
        except Exception as error:  # torch.export raises kinds of its own
            raise ExportError(f'no archive of torch.export of {_parts(source)} does what PyTorch does: '
                              f'{first_line(error)}. The kinds onnx and torchscript take more networks') from error
    return _notes(source, found, 'torch.export.load')


EXPORTERS: Dict[str, Callable[[Source, Path], List[str]]] = {
    'onnx': export_onnx, 'torch.export': export_torch_export, 'torchscript': export_torchscript}


def _prepare(source: Source) -> PixelsToLogits:
    """The network as one module that is compared with the segmentor itself."""
    if source.is_random:
        raise ExportError(f'{_parts(source)} draws random numbers while it predicts, so no file can be checked against '
                          'it; the kind plain can export it')
    net = PixelsToLogits(source.network).eval().requires_grad_(False)
    divisor = (getattr(source.network.data_preprocessor, 'test_cfg', None) or {}).get('size_divisor') or 1
    images = test_images(channels_of(source.network), 1, tuple(-(-side // divisor) * divisor for side in SIZE))
    pixels = images.float().flip(1) if _flips(source) else images.float()
    try:
        with torch.no_grad():
            ours, theirs = net(pixels), whole_logits(source.network, images)
    except Exception as error:  # a network raises whatever its parts do
        raise ExportError(f'{_parts(source)} cannot take images of {SIZE[0]}x{SIZE[1]}, so there is no graph of it for '
                          f'images of any size: {first_line(error)}') from error
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4):
        raise ExportError(f'{_parts(source)} does more in a prediction than its forward pass and a resize, or '
                          'data_preprocessor.test_cfg pads images: such a network has no graph of its own')
    return net


def _flips(source: Source) -> bool:
    cfg = source.model_cfg.get('data_preprocessor') or {}
    return channels_of(source.network) == 3 and bool(cfg.get('bgr_to_rgb') or cfg.get('rgb_to_bgr'))


def _parts(source: Source) -> str:
    return f'{type(source.network.backbone).__name__} with {type(source.network.decode_head).__name__}'


def _example(net: PixelsToLogits) -> Tensor:
    """What is traced: if possible of a size that fits no grid, so that the parts which resize to fit are on the way."""
    return test_images(channels_of(net.network), 2, _other_size(net)).float()


def _dynamic_shapes() -> tuple:
    dynamic = torch.export.Dim.DYNAMIC
    return ({0: dynamic, 2: dynamic, 3: dynamic}, )


def _write_onnx(net: PixelsToLogits, path: Path, dynamo: bool) -> None:
    names = dict(input_names=['image'], output_names=['logits'])
    if dynamo:
        options = dict(dynamic_shapes=_dynamic_shapes(), external_data=False, verbose=False)
    else:
        axes = {0: 'batch', 2: 'height', 3: 'width'}
        options = dict(dynamic_axes=dict(image=axes, logits=axes), opset_version=OPSET)
    with _quiet():
        torch.onnx.export(net, (_example(net), ), path, dynamo=dynamo, **names, **options)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print whole graphs, some from C++: below ``sys.stdout``."""
    previous = logging.root.manager.disable
    sys.stdout.flush(), sys.stderr.flush()
    saved = [os.dup(number) for number in (1, 2)]
    logging.disable(logging.CRITICAL)
    try:
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(previous)
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _onnx_runner(path: Path) -> Runner:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised as well
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(None, dict(image=images.numpy()))[0])


def _check(net: PixelsToLogits, run: Runner) -> Check:
    """Compares a file with PyTorch on two batch sizes and two image sizes, and the one of a ViT's own grid.

    Raises:
        ExportError: If the file fails, or differs by more than rounding.
    """
    sizes = [SIZE, _other_size(net)]
    own = getattr(net.network.backbone, 'img_size', None)  # there it adds its position embeddings as they are
    if own is not None:
        sizes.append((own, own) if isinstance(own, int) else tuple(own))
    difference, largest, agreement = 0.0, 0.0, 1.0
    for size in sizes:
        for batch in BATCHES:
            images = test_images(channels_of(net.network), batch, size).float()
            with torch.no_grad():
                expected = net(images)
                found = run(images)
            if found.shape != expected.shape:
                raise ExportError(f'for images {tuple(images.shape)} it gives {tuple(found.shape)}, expected '
                                  f'{tuple(expected.shape)}')
            difference = max(difference, float((found - expected).abs().max()))
            largest = max(largest, float(expected.abs().max()))
            agreement = min(agreement, float((net.labels(found) == net.labels(expected)).float().mean()))
    if not difference <= TOLERANCE * largest or agreement < AGREEMENT:
        raise ExportError(f'its logits differ by {difference:.3g} (the largest is {largest:.3g}), {agreement:.2%} of '
                          'the labels agree')
    return Check(difference, largest, agreement, ' and '.join(f'{height}x{width}' for height, width in sizes))


def _other_size(net: PixelsToLogits) -> tuple:
    """A second image size that the network itself can take."""
    for size in OTHER_SIZES:
        with contextlib.suppress(Exception), torch.no_grad():
            net(test_images(channels_of(net.network), 1, size).float())
            return size
    raise ExportError(f'the network takes images of one size only (it fails on {OTHER_SIZES} itself), but a file for '
                      'every size was asked for')


def _properties(source: Source) -> Dict[str, str]:
    """What travels inside the file, for those who use it."""
    test, head = source.model_cfg['test_cfg'], source.network.decode_head
    output, label = ('classes', 'the argmax over classes') if source.network.out_channels > 1 else (
        '1', f'1 where the sigmoid is above {head.threshold:g}, else 0')
    return dict(
        input=f'float32 [N, {channels_of(source.network)}, H, W] in 0..255, not normalized, channels '
              f'{channel_order(source)}',
        output=f'float32 [N, {output}, H, W] logits; the label is {label}',
        classes=json.dumps(class_names(source)),
        before=json.dumps(_before(source)),
        test_cfg=json.dumps(test),
        exported_from=f'{source.name} of {Path(source.cfg.filename).name}')


def _before(source: Source) -> List[str]:
    """What the config's test does to an image before the network sees it, and the file's caller has to do."""
    loader = source.cfg.get('test_dataloader') or source.cfg.get('val_dataloader') or {}
    pipeline = (loader.get('dataset') or {}).get('pipeline') or source.cfg.get('test_pipeline') or []
    done = [f"{name_of(step['type'])}({', '.join(f'{key}={value!r}' for key, value in step.items() if key != 'type')})"
            for step in pipeline if name_of(step['type']) not in WITHOUT_EFFECT]
    padding = {key: value for key, value in (getattr(
        source.network.data_preprocessor, 'test_cfg', None) or {}).items() if value}
    return done + [f'padding at the right and the bottom to {key}={value}' for key, value in padding.items()]


def _notes(source: Source, found: Check, runner: str) -> List[str]:
    notes = [f'input: {_properties(source)["input"]}', f'output: {_properties(source)["output"]}',
             f'checked with {runner}: batches of {BATCHES[0]} and {BATCHES[1]}, images of {found.sizes}: largest '
             f'difference {found.difference:.2g} of logits up to {found.largest:.3g}, {found.agreement:.2%} of the '
             'labels agree']
    if before := _before(source):
        notes.append(f'the config prepares test images by {", ".join(before)}; the file leaves that to its caller')
    test = source.model_cfg['test_cfg']
    if test.get('mode') == 'slide':
        notes.append(f'the config tests with sliding windows of {test["crop_size"]}, stride {test["stride"]}; the file '
                     'predicts whole images or, called for each, windows')
    return notes

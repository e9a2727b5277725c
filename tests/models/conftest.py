"""Batches of CISC-R, and its losses written out pixel by pixel; what the tests of several methods assert."""
import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_semi.datasets import semi_collate

SIZE = (33, 33)


def masked(generator, height, width):
    """A mask [1, h, w] of four classes in blocks, two rows of 255."""
    blocks = torch.randint(4, (1, 1, 4, 4), generator=generator).float()
    label = F.interpolate(blocks, (height, width))[0].long()
    label[0, :2] = 255
    return label


@pytest.fixture
def make_guided_batch():
    """Function that draws a collated batch of CISC-R; guides share the classes of ``classes``, -1 for none."""

    def make(n_l=2, n_u=2, classes=(1, 2), pairs=True, pseudo=True, seed=0, sizes=((33, 33), (33, 29))):
        generator = torch.Generator().manual_seed(seed)
        samples = []
        for i in range(n_l + n_u):
            sample, guide = SegDataSample(), SegDataSample()
            sample.set_metainfo(dict(sample_idx=i - n_l))
            height, width = sizes[i % len(sizes)]
            if i < n_l:
                sample.gt_sem_seg = PixelData(data=masked(generator, height, width))
            elif pseudo:
                sample.pseudo_sem_seg = PixelData(data=masked(generator, height, width))
            image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
            height, width = sizes[(i + 1) % len(sizes)]
            guide.gt_sem_seg = PixelData(data=masked(generator, height, width))
            guide.inputs = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
            shared = classes[i % len(classes)]
            guide.set_metainfo(dict(guide_class=shared, has_guide=shared >= 0, guide_id=str(i)))
            if i >= n_l or pairs:
                sample.guide = guide
            samples.append(dict(inputs=image, data_samples=sample))
        return semi_collate(samples)

    return make


class Reference:
    """Sections 4 and 5 of the specification with loops over images, and features of the size of the crop."""

    @staticmethod
    def images(samples):
        """Normalized RGB images [N, 3, 33, 33] of BGR ones, padded with zeros, and masks padded with 255."""
        images, labels = torch.zeros(len(samples), 3, *SIZE), torch.full((len(samples), *SIZE), 255)
        for i, (image, sample) in enumerate(samples):
            height, width = image.shape[1:]
            images[i, :, :height, :width] = (image - torch.tensor(127.)) / 64
            for key in ('gt_sem_seg', 'pseudo_sem_seg'):
                if key in sample:
                    labels[i, :height, :width] = sample.get(key).data[0]
        return images.flip(1), labels

    @classmethod
    def read(cls, group):
        """(images, labels) of a group and of its guides, and the classes that they share."""
        samples = list(zip(group['inputs'], group['data_samples'], strict=True))
        guides = [(s.guide.inputs, s.guide) for _, s in samples if 'guide' in s]
        shared = [s.guide.guide_class for _, s in samples if 'guide' in s]
        return (*cls.images(samples), *cls.images(guides), shared)

    @staticmethod
    def forward(network, images):
        """Logits at crop size, auxiliary logits and the classifier's input, by the modules one after the other."""
        caught = []
        handle = network.decode_head.conv_seg.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        features = network.extract_feat(images)
        logits = [head(features) for head in (network.decode_head, getattr(network, 'auxiliary_head', None)) if head]
        handle.remove()
        return [F.interpolate(x, SIZE, mode='bilinear', align_corners=True) for x in logits], caught[0]

    @staticmethod
    def vector(features, mask):
        """Mean of the upsampled features of one image over a mask."""
        up = F.interpolate(features[None], SIZE, mode='bilinear', align_corners=False)[0]
        return (up * mask).sum((1, 2)) / (mask.sum() + 5e-4)

    @staticmethod
    def similarity(features, vector):
        """S of one image."""
        cosine = F.cosine_similarity(features, vector[:, None, None], dim=0)
        return F.interpolate(cosine[None, None], SIZE, mode='bilinear', align_corners=False)[0, 0].clamp(0, 1)

    @classmethod
    def consistency(cls, features, labels, shared):
        """L_con of pairs (i, i + P)."""
        total, half = 0, len(shared)
        for first, second in ((0, half), (half, 0)):
            loss, count = 0, 0
            for i, c in enumerate(shared):
                a, b = first + i, second + i
                count += (labels[a] != 255).sum()
                if c >= 0:
                    s = cls.similarity(features[a], cls.vector(features[b], labels[b] == c)).clamp(1e-6, 1 - 1e-6)
                    bce = F.binary_cross_entropy(s, (labels[a] == c).float(), reduction='none')
                    loss += bce[labels[a] != 255].sum()
            total += loss / count
        return total

    @classmethod
    def weights(cls, features, labels, guide_features, guide_labels, shared):
        """W of images."""
        weights = []
        for i, c in enumerate(shared):
            s = cls.similarity(features[i], cls.vector(guide_features[i], guide_labels[i] == c))
            weights.append(torch.where(labels[i] == c, s, 1 - s) if c >= 0 else torch.ones(SIZE))
        return torch.stack(weights)

    @staticmethod
    def supervised(logits, labels):
        """Head and auxiliary head, weighted as the tiny config."""
        return sum(w * F.cross_entropy(x, labels, ignore_index=255) for w, x in zip((1, .4), logits, strict=False))


@pytest.fixture
def reference():
    return Reference


@pytest.fixture
def assert_same_step():
    """Function that compares a model's loss, and its weights after one step of SGD, with those of a reference."""

    def compare(model, batch, reference_loss):
        other = copy.deepcopy(model)
        expected = reference_loss(other, batch)
        losses = model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))
        found = sum(value for key, value in losses.items() if 'loss' in key)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        for network, loss in ((model, found), (other, expected)):
            loss.backward()
            torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1).step()
        state = model.state_dict()
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(state[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
        return losses

    return compare


class OneDevice(TorchDispatchMode):
    """Refuses values of the host beside tensors of the device, as a GPU does; single numbers may meet them."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
        assert 'copy' in function.__name__ or len({x.device for x in tensors}) < 2, f'{function}: two devices'
        return function(*args, **(kwargs or {}))


@pytest.fixture
def to_meta(monkeypatch):
    """Function that moves a model to the device whose tensors have no values, and preprocesses a batch there.

    What waits for a value, a host-device sync, fails there, and so does what mixes devices.
    """
    monkeypatch.setattr(torch, 'autocast', lambda *args, **kwargs: contextlib.nullcontext())  # knows no meta device
    with contextlib.ExitStack() as modes:

        def move(model, batch):
            modes.enter_context(OneDevice())
            return model.to('meta').data_preprocessor(batch, True)

        yield move


@pytest.fixture
def assert_zero_with_graph():
    """Function that asserts that a loss is exactly 0 and that its gradients are, of which there are some."""

    def check(loss, model):
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        found = [gradient for gradient in gradients if gradient is not None]
        assert loss == 0 and found and not any(gradient.any() for gradient in found)

    return check

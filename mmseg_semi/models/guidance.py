"""What a guide says about an image: the similarity of CISC-R and its two uses."""
from typing import NamedTuple

from torch import Tensor

from mmseg_semi.models.losses import consistency_loss, cosine_similarity_map, masked_average_pool, rectify_weight

IGNORE = 255


class Guided(NamedTuple):
    """Features of images with their labels.

    Attributes:
        features (Tensor): [N, D, h, w], input of the classifier.
        label (Tensor): [N, H, W] int64, ground truth or pseudo-label, 255 = ignore.
    """
    features: Tensor
    label: Tensor


class Guidance:
    """The similarity ``S`` of an image to the region of one class in another image, and what follows from it.

    See section 4 and 5 of docs/methods/cisc_r.md. With ``c`` the class of a pair (-1: none), ``F, y`` of the image and
    ``F_g, y_g`` of its guide::

        v = masked_average_pool(F_g, [y_g = c])      S = cosine_similarity_map(F, v)

    Args:
        pool_eps (float): delta, > 0, in pixels, added to the area of the region. Published: 5e-4.
        similarity_range (str): ``'relu'`` or ``'affine'``, see :func:`cosine_similarity_map`.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(self, pool_eps: float = 5e-4, similarity_range: str = 'relu') -> None:
        if pool_eps <= 0:
            raise ValueError(f'guidance.pool_eps must be positive, found {pool_eps}')
        if similarity_range not in ('relu', 'affine'):
            raise ValueError(f"guidance.similarity_range must be 'relu' or 'affine', found {similarity_range!r}")
        self.pool_eps, self.similarity_range = pool_eps, similarity_range

    def similarity(self, image: Guided, guide: Guided, shared: Tensor) -> Tensor:
        """S of images to their guides.

        Args:
            image (Guided): N images.
            guide (Guided): N guides.
            shared (Tensor): [N] int64, class of each pair, -1 for none.

        Returns:
            Tensor: [N, H, W] in [0, 1], with a gradient to both features.
        """
        vector = masked_average_pool(guide.features, guide.label == shared[:, None, None], self.pool_eps)
        return cosine_similarity_map(image.features, vector, tuple(image.label.shape[1:]), self.similarity_range)

    def weight(self, image: Guided, guide: Guided, shared: Tensor) -> Tensor:
        """W of section 5, [N, H, W] in [0, 1] without gradient, 1 in images of no shared class; arguments as
        :meth:`similarity`."""
        inside = image.label == shared[:, None, None]
        return rectify_weight(self.similarity(image, guide, shared).detach(), inside, shared >= 0)

    def consistency(self, one: Guided, other: Guided, shared: Tensor) -> Tensor:
        """L_con of section 4: each image of a pair guides the other; arguments as :meth:`similarity`.

        Divisor: per direction, all pixels of this rank with a label, pairs without a shared class included.
        """
        return sum(
            consistency_loss(self.similarity(image, guide, shared), image.label == shared[:, None, None],
                             image.label != IGNORE, shared >= 0) for image, guide in ((one, other), (other, one)))

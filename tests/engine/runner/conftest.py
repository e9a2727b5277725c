"""Tiny data for plans."""
import cv2
import numpy as np
import pytest


@pytest.fixture
def data_root(tmp_path):
    """Four labeled, five unlabeled (in two folders) and two validation images of 33 x 33."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'data'
    for split, names in (('train', '0123'), ('unlabeled', ('u/0', 'u/1', 'u/2', 'v/0', 'v/1')), ('val', '01')):
        for name in names:
            label = np.kron(rng.integers(4, size=(3, 3)), np.ones((11, 11))).astype(np.uint8)
            image = (label[..., None] * 60 + rng.integers(40, size=(33, 33, 3))).astype(np.uint8)
            for kind, content in (('img', image), ('ann', label)):
                path = root / kind / split / f'{name}.png'
                if kind == 'img' or split != 'unlabeled':
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), content)
    return root

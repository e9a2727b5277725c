"""Tiny data for plans."""
import os
import random
import signal
import time

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


@pytest.fixture
def kill_in_each():
    """Function that starts a plan and kills it (-9) at a random moment, once per stage; returns the killed stages."""

    def kill(begin, folder, stages, longest):
        rng, killed = random.Random(0), []
        for stage in stages:
            process = begin()
            while process.is_alive() and not (folder / stage).exists():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, longest))
            if process.is_alive():
                killed.append(stage)
                os.kill(process.pid, signal.SIGKILL)
            process.join(60)
        return killed

    return kill

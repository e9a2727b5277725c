"""Tiny data for plans."""
import json
import multiprocessing
import os
import random
import signal
import time
import weakref

import cv2
import numpy as np
import pytest
import torch
from mmengine.utils import ProgressBar
from mmseg.registry import RUNNERS

from mmseg_semi.datasets import ClassIndex
from mmseg_semi.engine.hooks import ReplayHook
from mmseg_semi.engine.runner import image_records


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


def train_slowly(make_plan, unit):
    """Trains a plan, in a process of its own: each record and iteration takes ``unit`` seconds longer, a class index
    three times that.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)

    def after_a_while(function, units=1):
        def wait(*args, **kwargs):
            time.sleep(units * unit)
            return function(*args, **kwargs)
        return wait

    image_records.ProgressBar = type('SlowBar', (ProgressBar, ), dict(update=after_a_while(ProgressBar.update)))
    ReplayHook.before_train_iter = after_a_while(ReplayHook.before_train_iter)
    ClassIndex.save = after_a_while(ClassIndex.save, 3)
    RUNNERS.build(make_plan()).train()


def status_of(folder, stage):
    path = folder / 'state.json'
    return json.loads(path.read_text())['stages'].get(stage, {}).get('status') if path.is_file() else None


@pytest.fixture
def kill_in_each():
    """Function that starts a plan and kills it (-9) at a random moment, once in each stage, and then lets it end."""

    def begin(make_plan, unit):
        process = multiprocessing.get_context('fork').Process(target=train_slowly, args=(make_plan, unit))
        process.start()
        return process

    def kill(make_plan, folder, units):
        """``units``: for each stage, how many units it takes at least."""
        rng, unit = random.Random(0), 0.25
        for stage, count in units.items():
            process = begin(make_plan, unit)
            while process.is_alive() and status_of(folder, stage) is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.7 * unit * count))
            os.kill(process.pid, signal.SIGSTOP)  # so that the stage cannot end between look and kill
            status = status_of(folder, stage)
            os.kill(process.pid, signal.SIGKILL)
            process.join(60)
            assert status == 'running', (stage, status)
        process = begin(make_plan, 0)
        process.join(120)
        assert process.exitcode == 0

    return kill


@pytest.fixture
def held(monkeypatch):
    """Function: module that calls ``read_samples`` -> list of how many of its samples were alive as each was made."""

    def watch(module):
        counts, seen, read = [], [], module.read_samples

        def watched(*args):
            for sample in read(*args):
                seen.append(weakref.ref((sample[0] if isinstance(sample, tuple) else sample)['inputs']))
                counts.append(sum(reference() is not None for reference in seen))
                yield sample
                del sample  # while the next is made, it is the caller's to keep

        monkeypatch.setattr(module, 'read_samples', watched)
        return counts

    return watch

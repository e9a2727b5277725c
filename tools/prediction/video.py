"""Frames of a video in, an overlay video out."""
from pathlib import Path
from typing import Callable, Iterator, Tuple

import cv2
import numpy as np

from mmseg_semi.files import whole

from .inputs import Unreadable


def open_video(path: Path) -> cv2.VideoCapture:
    """Opens a video for reading.

    Raises:
        Unreadable: If OpenCV cannot decode it.
    """
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise Unreadable('OpenCV cannot decode the file')
    return video


def count_frames(path: Path) -> int:
    """What the file says about its length; 0 if it says nothing or cannot be read."""
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
    video.release()
    return max(0, count)


def frames(path: Path) -> Iterator[Tuple[int, np.ndarray]]:
    """Yields number and picture [H, W, 3] BGR of every frame.

    Raises:
        Unreadable: If there is none.
    """
    video = open_video(path)
    try:
        number = 0
        while True:
            read, frame = video.read()
            if not read:
                break
            yield number, frame
            number += 1
    finally:
        video.release()
    if number == 0:
        raise Unreadable('no frame can be decoded')


def paint_video(source: Path, target: Path, paint: Callable[[int, np.ndarray], np.ndarray]) -> None:
    """Writes ``target`` (.mp4), each frame of ``source`` painted by ``paint(number, frame)``, at the same speed.

    Raises:
        Unreadable: If OpenCV cannot write this format.
    """
    video = open_video(source)
    rate = video.get(cv2.CAP_PROP_FPS)
    video.release()
    with whole(target) as part:
        writer = None
        try:
            for number, frame in frames(source):
                if writer is None:
                    size = frame.shape[1::-1]
                    writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*'mp4v'), rate if rate > 0 else 25, size)
                    if not writer.isOpened():
                        raise Unreadable(f'this OpenCV cannot write {target.name} (mp4v, {size[0]}x{size[1]})')
                writer.write(paint(number, frame))
        finally:
            if writer is not None:
                writer.release()

"""A stage that scores images and splits them into a reliable and an unreliable list."""
import logging
import math
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset

from mmseg_semi.engine.runner.image_records import image_files, read_records, share_records
from mmseg_semi.engine.runner.pseudo_label_stage import native_pipeline, own_kernels
from mmseg_semi.engine.runner.samples import read_samples, worker_number
from mmseg_semi.engine.runner.stage import Stage
from mmseg_semi.files import write_text
from mmseg_semi.registry import DATASETS, STAGE_SCORERS, STAGES


class StageScorer(ABC):
    """What gives an image its score in a ``SelectStage``; registered in ``STAGE_SCORERS``.

    The stage builds it from its ``scorer`` option more than once: when the plan is checked, where ``'stage:artifact'``
    references are still these strings, and before the stage runs, where they are paths. So a constructor checks and
    stores options, :meth:`settings` returns them, :meth:`prepare` does the rest. A scorer sees one image at a time.
    """

    #: Names of the files that :meth:`prepare` makes, besides the stage's own.
    artifacts: tuple = ()
    #: Whether a high score is a reliable image.
    higher_is_better = True
    #: Processes per rank that read images, for :meth:`prepare`; the stage sets it.
    num_workers = 0

    @abstractmethod
    def settings(self) -> dict:
        """Every option that determines a score, as plain data; paths of references as they were given."""

    @abstractmethod
    def prepare(self, folder: Path, dataset: BaseSegDataset) -> Dict[str, Path]:
        """Loads models and makes extra artifacts; called on every rank, before the first score.

        Called again when a stage that was stopped goes on: the same files must come out. Only rank 0 may write, by
        ``mmseg_semi.files``, and all ranks must find the file on return (barrier).

        Args:
            folder (Path): Of the stage.
            dataset (BaseSegDataset): What will be scored.

        Returns:
            dict[str, Path]: A file for each of :attr:`artifacts`.
        """

    @abstractmethod
    def score(self, sample: dict) -> float:
        """Scores one image; called on one rank only, so it must hold no collective.

        Args:
            sample (dict): ``dataset[i]``: ``inputs`` uint8 [3, H, W] and ``data_samples``, as the pipeline packed them.

        Returns:
            float: Not NaN; may be infinite.
        """


def reliable_count(ratio: float, total: int) -> int:
    """``floor(ratio * N)``."""
    return math.floor(round(ratio * total, 9))  # rounded first: 0.29 * 100 is 28.999999999999996


def split_by_score(scores: Sequence[Tuple[str, float]], ratio: float,
                   higher_is_better: bool) -> Tuple[List[str], List[str]]:
    """Ids of the best ``floor(ratio * N)`` images, best first, and of the others; equal scores are ordered by id."""
    ranked = [key for key, _ in sorted(scores, key=lambda item: (-item[1] if higher_is_better else item[1], item[0]))]
    count = reliable_count(ratio, len(ranked))
    return ranked[:count], ranked[count:]


@STAGES.register_module()
class SelectStage(Stage):
    """Scores every image of a dataset and calls the best ones reliable (ST++ spec section 3, CISC-R spec section 6).

    Ranks share the images; a score that is on disk is not computed again. Artifacts: ``scores`` (``scores.jsonl``:
    ``id`` and ``score`` of each image), ``reliable`` and ``unreliable`` (text files: image files relative to
    ``img_path``, best first, to be used as ``ann_file``), and those of the scorer.

    Args:
        scorer (dict): Of ``STAGE_SCORERS``, see :class:`StageScorer`.
        dataset (dict): An ``UnlabeledDataset``; without ``pipeline``, images are read at their own size.
        ratio (float): Share of reliable images, rounded down, in (0, 1]. Defaults to 0.5.
        num_workers (int): Processes per rank that read images. Defaults to those of the plan's ``val_dataloader``.

    Raises:
        ValueError: If ``ratio`` is out of range or a score is NaN.
    """

    # From the scores that are there.
    mends = ('reliable', 'unreliable')

    def __init__(self, scorer: dict, dataset: dict, ratio: float = 0.5, num_workers: Optional[int] = None,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 < ratio <= 1:
            raise ValueError(f'SelectStage.ratio must be in (0, 1], found {ratio}')
        if STAGE_SCORERS.get(scorer.get('type', '')) is None:
            raise ValueError(f'SelectStage.scorer.type: there is no scorer {scorer.get("type")!r}; there are '
                             f'{sorted(STAGE_SCORERS.module_dict)}')
        self.scorer: StageScorer = STAGE_SCORERS.build(dict(scorer))
        self.scorer.num_workers = worker_number(num_workers, self.plan_cfg)
        self.scorer_type, self.ratio = scorer['type'], ratio
        self.dataset = {'type': 'UnlabeledDataset', 'pipeline': native_pipeline(self.plan_cfg), **dataset}
        self.artifacts = ('scores', 'reliable', 'unreliable', *self.scorer.artifacts)

    def settings(self) -> dict:
        """The dataset, the ratio and the scorer's options."""
        return dict(dataset=self.dataset, ratio=self.ratio, scorer=dict(self.scorer.settings(), type=self.scorer_type))

    def run(self) -> Dict[str, Path]:
        """Scores what is not scored yet and writes the lists."""
        with own_kernels(self.plan_cfg):
            return self._select()

    def _select(self) -> Dict[str, Path]:
        dataset = DATASETS.build(self.dataset)
        files = image_files(dataset)
        keys = list(files)
        extra = self.scorer.prepare(self.folder, dataset)

        def score(indices: List[int]) -> Iterator[dict]:
            with closing(read_samples(dataset, indices, self.scorer.num_workers)) as samples:
                for index, sample in zip(indices, samples, strict=True):
                    value = float(self.scorer.score(sample))
                    if math.isnan(value):
                        raise ValueError(f'{self.scorer_type} gave image {keys[index]} the score NaN')
                    yield dict(score=value)

        scores = share_records(self.folder, 'scores', keys, lambda record: 'score' in record, score)
        lists = dict(zip(('reliable', 'unreliable'), split_by_score(
            [(record['id'], record['score']) for record in read_records(scores)], self.ratio,
            self.scorer.higher_is_better), strict=True))
        paths = {name: self.folder / f'{name}.txt' for name in lists}
        if get_rank() == 0:
            for name, path in paths.items():
                write_text(path, ''.join(f'{files[key]}\n' for key in lists[name]))
        barrier()
        counts = f'{len(lists["reliable"])} of {len(keys)} images are reliable'
        print_log(f'{self.folder.name}: {counts}.', 'current',
                  level=logging.INFO if lists['reliable'] else logging.WARNING)
        return dict(scores=scores, **paths, **extra)

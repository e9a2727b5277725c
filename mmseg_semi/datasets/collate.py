"""Groups the samples of one batch by their source."""
from typing import Dict, List, Sequence

from mmseg_semi.registry import FUNCTIONS


@FUNCTIONS.register_module()
def semi_collate(samples: Sequence[dict]) -> Dict[str, Dict[str, list]]:
    """Splits packed samples into labeled and unlabeled ones; runs in the worker.

    mmengine's collate functions take the keys of the first sample for all; here nothing is lost or filled with None.

    Args:
        samples (Sequence[dict]): Results of ``PackSegInputs``: ``inputs``, uint8 [3, H, W], and ``data_samples``, a
            ``SegDataSample``. A sample is labeled if it carries ``gt_sem_seg``.

    Returns:
        dict: ``{'labeled': {'inputs': list, 'data_samples': list}, 'unlabeled': {...}}``; order kept.
    """
    groups: Dict[str, Dict[str, List]] = {
        name: dict(inputs=[], data_samples=[])
        for name in ('labeled', 'unlabeled')
    }
    for sample in samples:
        group = groups['labeled' if 'gt_sem_seg' in sample['data_samples'] else 'unlabeled']
        group['inputs'].append(sample['inputs'])
        group['data_samples'].append(sample['data_samples'])
    return groups

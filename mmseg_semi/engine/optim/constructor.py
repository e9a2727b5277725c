"""An optimizer for the student only."""
from typing import List, Optional

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmseg_semi.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SemiOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, without the teacher's frozen tensors and with few parameter groups.

    mmengine makes one group per parameter as soon as ``paramwise_cfg`` is given, and torch's multi-tensor optimizers
    work per group; groups of equal settings are therefore merged.

    Args:
        optim_wrapper_cfg (dict): As mmengine's.
        paramwise_cfg (dict, optional): As mmengine's.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Optional[dict] = None) -> None:
        # Never empty: without paramwise settings mmengine would hand over model.parameters(), the teacher included.
        super().__init__(optim_wrapper_cfg, dict(paramwise_cfg or dict(custom_keys={})))

    def add_params(self, params: List[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Collects parameter groups, skipping ``teacher``; at the root, merges groups of equal settings."""
        if prefix == 'teacher':
            return
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        merged = {}
        for group in params:
            settings = tuple(sorted((k, repr(v)) for k, v in group.items() if k != 'params'))
            merged.setdefault(settings, {**group, 'params': []})['params'].extend(group['params'])
        params[:] = merged.values()

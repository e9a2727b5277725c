from . import hooks, metrics, optim

__all__ = ['hooks', 'metrics', 'optim']

from . import hooks, metrics, optim, runner

__all__ = ['hooks', 'metrics', 'optim', 'runner']

from .constructor import SemiOptimWrapperConstructor

__all__ = ['SemiOptimWrapperConstructor']

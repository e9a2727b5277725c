"""Errors of samples that name their files."""
from typing import Optional


def with_files(error: Exception, info: dict) -> Optional[ValueError]:
    """The error of a sample with the names of its files: a decoder that meets a broken file does not say which.

    Args:
        error (Exception): What went wrong while the sample was made.
        info (dict): ``get_data_info`` of the sample.

    Returns:
        ValueError, optional: None if the error names one of the files already.
    """
    paths = [info[key] for key in ('img_path', 'seg_map_path') if info.get(key)]
    if any(path in str(error) for path in paths):
        return None
    return ValueError(f'cannot make a sample of {" and ".join(paths)}: {type(error).__name__}: {error}')

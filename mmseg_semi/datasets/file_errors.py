"""Errors of samples that name their files."""
import contextlib
from typing import Iterator


@contextlib.contextmanager
def naming_files(dataset, index: int) -> Iterator[None]:
    """Inside, an error names the files of a sample: a decoder that meets an empty or broken file does not say which.

    Args:
        dataset: With ``get_data_info``, as mmengine's.
        index (int): Of the sample that is made inside.

    Raises:
        ValueError: In place of an error that names none of the files.
    """
    try:
        yield
    except Exception as error:
        info = dataset.get_data_info(index)
        paths = [info[key] for key in ('img_path', 'seg_map_path') if info.get(key)]
        if any(path in str(error) for path in paths):
            raise
        raise ValueError(f'cannot make a sample of {" and ".join(paths)}: {type(error).__name__}: {error}') from error

"""One record per image: ranks share the images, and no record is made twice however often the work is stopped."""
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Callable, Dict, Generator, List, Sequence

from mmengine.dist import barrier, broadcast_object_list, get_dist_info
from mmengine.logging import print_log
from mmengine.utils import ProgressBar
from mmseg.datasets import BaseSegDataset

from mmseg_semi.engine.runner.stage import PlanError
from mmseg_semi.files import write_text


def image_files(dataset: BaseSegDataset) -> Dict[str, str]:
    """Id of each image (its path below ``img_path`` without suffix, which also names its mask) -> that path.

    Raises:
        ValueError: If two images have the same id, so that their masks would overwrite each other.
    """
    root, found = Path(dataset.data_prefix['img_path']), {}
    for i in range(len(dataset)):
        file = Path(dataset.get_data_info(i)['img_path']).relative_to(root)
        key = file.with_suffix('').as_posix()
        if key in found:
            raise ValueError(f'{root}: {found[key]} and {file.as_posix()} would share the mask {key}.png; list each '
                             'image once, under a name of its own')
        found[key] = file.as_posix()
    return found


def read_records(path: Path) -> List[dict]:
    """The lines of a file of records; a line that was cut off is left out."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [record for record in records if isinstance(record, dict) and 'id' in record]


def _to_text(records: Dict[str, dict]) -> str:
    return ''.join(json.dumps(records[key]) + '\n' for key in sorted(records))


def _known(folder: Path, stem: str, keys: Sequence[str], usable: Callable[[dict], bool]) -> Dict[str, dict]:
    wanted, parts = set(keys), [folder / f'{stem}.jsonl', *sorted(folder.glob(f'{stem}.rank*.jsonl'))]
    found = [record for part in parts for record in read_records(part) if record['id'] in wanted]
    with ThreadPoolExecutor() as threads:  # the other ranks wait, and this one mostly for a network disk
        return {record['id']: record for record, good in zip(found, threads.map(usable, found), strict=True) if good}


def _whole_blocks(todo: Sequence[int], block: int, count: int) -> List[int]:
    """All images of this rank's share of the blocks in which something is to do."""
    rank, world_size = get_dist_info()
    blocks = sorted({i // block for i in todo})[rank::world_size]
    return [i for b in blocks for i in range(b * block, min((b + 1) * block, count))]


def share_records(folder: Path, stem: str, keys: Sequence[str], usable: Callable[[dict], bool],
                  make: Callable[[List[int]], Generator[dict, None, None]], block: int = 1) -> Path:
    """Makes ``folder/stem.jsonl``, one record per image, sorted by id; to be called by all ranks.

    Each rank appends to a file of its own until all are done. Whatever usable records are found, also of another
    number of ranks, is not made again.

    Args:
        folder (Path): Exists on all ranks, a shared file system.
        stem (str): Name of the file without suffix.
        keys (Sequence[str]): Id of each image.
        usable (Callable): Whether a record that is found still holds (rank 0 only, by several threads).
        make (Callable): Generator function: indices of images -> their records without ``id``, plain data, in this
            order. What it yields is on disk before the next; it is closed whatever happens.
        block (int): Images that belong together: 0 to ``block - 1`` and so on. One rank makes all of them or none, also
            those that it finds, so a record never depends on where the work was stopped or on the number of ranks.

    Returns:
        Path: The file.

    Raises:
        PlanError: If rank 0 does not find a record of every image, as where ranks write to disks of their own.
    """
    rank, _ = get_dist_info()
    final, first = folder / f'{stem}.jsonl', folder / f'{stem}.rank0.jsonl'

    done: list = [None]
    if rank == 0:
        done = [_known(folder, stem, keys, usable)]
        # Whole lines only: what is appended to a line that was cut off is lost with it.
        write_text(first, _to_text(done[0]))
        for path in [final, *folder.glob(f'{stem}.rank*.jsonl')]:
            if path != first:
                path.unlink(missing_ok=True)
        done = [set(done[0])]
    broadcast_object_list(done)
    todo = [i for i, key in enumerate(keys) if key not in done[0]]
    print_log(f'{folder}: {len(keys)} images, {len(keys) - len(todo)} done before.', 'current')
    mine = _whole_blocks(todo, block, len(keys))
    bar = ProgressBar(len(mine)) if rank == 0 and mine else None
    with open(folder / f'{stem}.rank{rank}.jsonl', 'a') as file, closing(make(mine)) as records:
        for index, record in zip(mine, records, strict=True):
            file.write(json.dumps(dict(id=keys[index], **record)) + '\n')
            file.flush()
            if bar:
                bar.update()
    if bar:
        bar.file.write('\n')
    barrier()
    missing: list = [None]
    if rank == 0:
        records = _known(folder, stem, keys, usable)
        missing = [[key for key in keys if key not in records]]
        if not missing[0]:
            write_text(final, _to_text(records))
            for path in folder.glob(f'{stem}.rank*.jsonl'):
                path.unlink()
    broadcast_object_list(missing)
    if missing[0]:
        raise PlanError(f'{folder}: all ranks are done, but {len(missing[0])} of {len(keys)} images have no record in '
                        f'{stem}.rank*.jsonl, such as {missing[0][0]}; expected a file system that all ranks share. '
                        'These files are kept; start again where all of them are seen')
    return final

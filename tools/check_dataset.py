"""Checks the data of a config before any hour of training: files, masks, classes, leaks.

    python tools/check_dataset.py CONFIG

Prints a table of the sources (labeled, unlabeled, val, test), one of the classes and every finding, and writes a page
with pictures. Exit status: 0 nothing that would spoil training (there may be warnings), 1 errors found, 2 nothing
could be checked or the page not be written, 130 interrupted. docs/check_dataset.md explains the findings.
"""
import argparse
import json
import os
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

from dataset_check.common import UserError, shown
from dataset_check.findings import Finding, find
from dataset_check.leaks import content_keys, overlaps
from dataset_check.page import make_page, wanted_pictures
from dataset_check.scan import chunks, make_pool, rehearse, scan, spread
from dataset_check.sources import Source, read_config, read_sources
from dataset_check.tally import Tally
from dataset_check.terminal import classes_table, findings_text, sources_table, verdict
from dataset_check.thumbnails import thumbnail
from mmengine.utils import ProgressBar

from mmseg_semi.engine.give_up import Options, positive
from mmseg_semi.files import write_text


def parse_args(args: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config')
    parser.add_argument('--hash', action='store_true', help='also find equal files under different names')
    parser.add_argument('--html', type=Path, metavar='FILE',
                        help='where the page goes (default: work_dirs/NAME/check_dataset.html)')
    parser.add_argument('--json', action='store_true', help='the last line is one JSON object')
    parser.add_argument('--workers', type=positive, default=_cores(), help='processes (default: one per core)')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='settings that override the config, as in tools/train.py')
    return parser.parse_args(args)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


class Progress:
    """A bar on stderr that may not know its length before it starts."""

    def __init__(self, what: str) -> None:
        self.what, self.bar = what, None

    def __call__(self, done: int, total: int) -> None:
        if self.bar is None:
            print(self.what, file=sys.stderr)
            self.bar = ProgressBar(total, file=sys.stderr)
        if done:
            self.bar.update(done)

    def close(self) -> None:
        if self.bar is not None:
            print(file=sys.stderr)


def scan_all(sources: Sequence[Source], pool) -> List[Tally]:
    """Looks at every image and mask, and sends one sound sample of each source through its whole pipeline."""
    tallies = [Tally(source) for source in sources]
    progress, total = Progress('images and masks'), sum(map(len, sources))
    for number, records in spread(pool, scan, chunks(sources)):
        for record in records:
            tallies[number].add(record)
        progress(len(records), total)
    progress.close()
    for tally in tallies:
        tally.close()
    sound = [(number, tally.sound) for number, tally in enumerate(tallies) if tally.sound is not None]
    for number, place, error in spread(pool, rehearse, sound):
        if error is not None:
            info = tallies[number].source.dataset.get_data_info(place)
            tallies[number].add_problem('pipeline', f'{shown(info["img_path"])}: {error}', place)
    return tallies


def check(args: argparse.Namespace) -> List[Finding]:
    """Checks and reports.

    Raises:
        UserError: If the config cannot be checked.
    """
    page = (args.html or Path('work_dirs') / Path(args.config).stem / 'check_dataset.html').resolve()
    if page.is_dir():
        raise UserError(f'--html {page} is a folder; expected a file, e.g. {page / "check_dataset.html"}')
    every, failed = read_sources(read_config(args.config, args.cfg_options))
    sources = [source for source in every if source.same_as is None]
    page.parent.mkdir(parents=True, exist_ok=True)  # fails before the long work, if at all
    twins = [(source.name, source.same_as) for source in every if source.same_as]
    pool = make_pool(sources, args.workers)
    try:
        tallies = scan_all(sources, pool)
        keys: Dict[str, str] = {}
        if args.hash:
            progress = Progress('content of files of equal length')
            keys = content_keys(tallies, pool, progress)
            progress.close()
        findings = find(tallies, overlaps(tallies, keys), failed)
        pictures = dict(spread(pool, thumbnail, wanted_pictures(tallies, findings)))
    finally:
        pool.shutdown(cancel_futures=True)
    _report(args, tallies, twins, findings, page)  # first: a full disk must not cost the work of hours
    write_text(page, make_page(args.config, tallies, twins, findings, pictures))
    return findings


def _report(args: argparse.Namespace, tallies: Sequence[Tally], twins: Sequence[tuple], findings: Sequence[Finding],
            page: Path) -> None:
    texts = [sources_table(tallies, twins), classes_table(tallies), findings_text(findings),
             f'{verdict(findings)}; pictures in {shown(str(page))}']
    print('\n'.join(filter(None, texts)))
    if args.json:
        print(json.dumps(dict(config=shown(args.config), hash=args.hash, html=shown(str(page)),
                              errors=sum(finding.level == 'error' for finding in findings),
                              warnings=sum(finding.level == 'warning' for finding in findings),
                              sources=[tally.summary() for tally in tallies],
                              same=[dict(name=name, same_as=other) for name, other in twins],
                              findings=[finding.plain() for finding in findings])))


def main(args: Optional[Sequence[str]] = None) -> int:
    """Returns the exit status."""
    args = parse_args(args)
    try:
        findings = check(args)
    except (UserError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\ninterrupted; nothing was written', file=sys.stderr)
        return 130
    return int(any(finding.level == 'error' for finding in findings))


if __name__ == '__main__':
    sys.exit(main())

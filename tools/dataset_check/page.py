"""The report as one HTML file that needs nothing else: styles and pictures are inside."""
from html import escape
from typing import Dict, List, Optional, Sequence, Tuple

from dataset_check.common import shown
from dataset_check.findings import Finding
from dataset_check.tally import Tally
from dataset_check.terminal import size_text, verdict

PER_SOURCE, PER_FINDING = 8, 3  # pictures

STYLE = '''
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: .5em 0 1.5em; }
th, td { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.finding { border-left: 5px solid #d90; background: #fff8e6; padding: .5em 1em; margin: .7em 0; }
.finding.error { border-color: #c22; background: #fdeeee; }
.files { font: 13px/1.4 ui-monospace, monospace; margin: .3em 0; overflow-wrap: anywhere; }
.pictures { display: flex; flex-wrap: wrap; gap: .8em; }
figure { margin: 0; max-width: 330px; } figcaption { font-size: 12px; overflow-wrap: anywhere; color: #555; }
.swatch { display: inline-block; width: .9em; height: .9em; border: 1px solid #888; margin: 0 .35em 0 0; }
.bar { display: inline-block; height: .7em; background: #58a; margin-right: .5em; }
'''


def wanted_pictures(tallies: Sequence[Tally], findings: Sequence[Finding]) -> List[Tuple[int, int]]:
    """``(source, place)`` of every picture that the page shows."""
    places = [(number, place) for number, tally in enumerate(tallies) for place in _spread(tally)]
    numbers = {tally.source.name: number for number, tally in enumerate(tallies)}
    for finding in findings:
        number = numbers.get(finding.source.split(', ')[0])
        places += [(number, place) for _, place in finding.examples[:PER_FINDING] if number is not None]
    return list(dict.fromkeys(places))


def make_page(config: str, tallies: Sequence[Tally], twins: Sequence[tuple], findings: Sequence[Finding],
              pictures: Dict[Tuple[int, int], Optional[str]]) -> str:
    """The page.

    Args:
        config (str): Name of the config.
        tallies (Sequence[Tally]): Of all sources.
        twins (Sequence[tuple]): ``(source, the one with the same files)``.
        findings (Sequence[Finding]): All of them.
        pictures (dict): Data URL by ``(source, place)``, None where there is no picture.

    Returns:
        str: HTML. Whatever comes from the data (names of files and classes, messages) is escaped.
    """
    title = f'Data set check: {escape(shown(config))}'
    numbers = {tally.source.name: number for number, tally in enumerate(tallies)}
    parts = [f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>',
             f'<h1>{title}</h1><p><b>{escape(verdict(findings))}</b></p>', _sources(tallies, twins)]
    parts += ['<h2>Findings</h2>', *(_finding(finding, numbers, pictures) for finding in findings)] if findings else []
    parts.append(_classes(tallies))
    for number, tally in enumerate(tallies):
        names = {place: path for place, path, *_ in tally.files}
        shots = [(shown(names[place]), pictures.get((number, place))) for place in _spread(tally)]
        parts.append(f'<h2>{escape(tally.source.name)}</h2><div class="pictures">'
                     + ''.join(_figure(name, picture) for name, picture in shots) + '</div>')
    return '\n'.join(parts) + '\n'


def _spread(tally: Tally) -> List[int]:
    """Places of a few images, evenly over the source."""
    count = len(tally.files)
    return [tally.files[i * count // PER_SOURCE][0] for i in range(PER_SOURCE)] if count > PER_SOURCE else [
        place for place, *_ in tally.files]


def _row(cells: Sequence, tag: str = 'td') -> str:
    return '<tr>' + ''.join(f'<{tag}>{cell}</{tag}>' for cell in cells) + '</tr>'


def _sources(tallies: Sequence[Tally], twins: Sequence[tuple]) -> str:
    rows = [_row(['source', 'images', 'masks', 'missing or broken', 'width x height', 'files'], 'th')]
    for summary in (tally.summary() for tally in tallies):
        cells = [summary['name'], summary['images'], summary['masks'] or '-', summary['broken'], size_text(summary),
                 ', '.join(f'{count} {kind}' for kind, count in summary['kinds'].items()) or '-']
        rows.append(_row([escape(str(cell)) for cell in cells]))
    rows += [_row([escape(name), f'= {escape(other)}', '', '', '', '']) for name, other in twins]
    return f'<table>{"".join(rows)}</table>'


def _classes(tallies: Sequence[Tally]) -> str:
    with_masks = [tally for tally in tallies if tally.masks]
    if not with_masks:
        return ''
    names, palette = with_masks[0].source.classes, with_masks[0].source.palette
    head = ['class', *(escape(f'{tally.source.name}: {what}') for tally in with_masks for what in ('pixels', 'images'))]
    rows = [_row(head, 'th')]
    for c, name in enumerate(names[:256]):
        color = 'rgb({}, {}, {})'.format(*palette[c])
        cells = [f'<span class="swatch" style="background: {color}"></span>{c} {escape(name)}']
        for tally in with_masks:
            share = tally.share(c)
            cells += [f'<span class="bar" style="width: {80 * share:.1f}px"></span>{share:.2%}', int(tally.images[c])]
        rows.append(_row(cells))
    return ('<h2>Classes</h2><p>Shares are of the pixels that are not ignored. In the pictures ignored pixels are '
            f'white, labels that are no class magenta.</p><table>{"".join(rows)}</table>')


def _finding(finding: Finding, numbers: Dict[str, int], pictures: dict) -> str:
    number = numbers.get(finding.source.split(', ')[0])
    files = ''.join(f'<div class="files">{escape(text)}</div>' for text, _ in finding.examples)
    shots = [(text, pictures.get((number, place))) for text, place in finding.examples[:PER_FINDING]]
    shots = ''.join(_figure(text, picture) for text, picture in shots if picture)
    return (f'<div class="finding {finding.level}"><b>{finding.level} [{finding.code}]</b> {escape(finding.source)}: '
            f'{escape(finding.message)}{files}' + (f'<div>&rarr; {escape(finding.hint)}</div>' if finding.hint else '')
            + (f'<div class="pictures">{shots}</div>' if shots else '') + '</div>')


def _figure(name: str, picture: Optional[str]) -> str:
    inside = f'<img src="{picture}" alt="">' if picture else '<i>cannot be shown</i>'
    return f'<figure>{inside}<figcaption>{escape(name)}</figcaption></figure>'

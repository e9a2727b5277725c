"""The report as text."""
from typing import List, Sequence

from prettytable import PrettyTable

from dataset_check.findings import Finding
from dataset_check.tally import Tally


def size_text(summary: dict) -> str:
    """'500x375', or the range and how many sizes there are."""
    if summary['smallest'] is None:
        return '-'
    low, high = (f'{side[1]}x{side[0]}' for side in (summary['smallest'], summary['largest']))
    return low if summary['sizes'] == 1 else f'{low} .. {high} ({summary["sizes"]} sizes)'


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    table = PrettyTable(columns)
    table.align = 'r'
    table.align[columns[0]] = 'l'
    table.add_rows(rows)
    return str(table)


def sources_table(tallies: Sequence[Tally], twins: Sequence[tuple]) -> str:
    """One line per source."""
    rows = []
    for summary in (tally.summary() for tally in tallies):
        rows.append([summary['name'], summary['images'], summary['masks'] or '-', summary['broken'],
                     size_text(summary), ', '.join(summary['kinds']) or '-',
                     f'{summary["ignored_share"]:.1%}' if summary['masks'] else '-'])
    rows += [[name, f'= {other}', '', '', '', '', ''] for name, other in twins]
    return _table(['source', 'images', 'masks', 'missing or broken', 'width x height', 'files', 'ignored pixels'], rows)


def classes_table(tallies: Sequence[Tally]) -> str:
    """One line per class: share of the labeled pixels and number of images, for each source with masks."""
    summaries = [tally.summary() for tally in tallies if tally.masks]
    length = max((len(summary['classes']) for summary in summaries), default=0)
    rows = []
    for c in range(length):
        row = [f'{c} {next(s["classes"][c]["name"] for s in summaries if c < len(s["classes"]))}']
        for summary in summaries:
            entry = summary['classes'][c] if c < len(summary['classes']) else None
            row += [f'{entry["share"]:.2%}', entry['images']] if entry else ['-', '-']
        rows.append(row)
    columns = ['class'] + [text for s in summaries for text in (f'{s["name"]}: pixels', f'{s["name"]}: images')]
    return _table(columns, rows) if rows else ''


def findings_text(findings: Sequence[Finding]) -> str:
    """Every finding with its first files."""
    lines: List[str] = []
    for finding in findings:
        lines.append(f'{finding.level.upper()} [{finding.code}] {finding.source}: {finding.message}')
        lines += [f'    {text}' for text, _ in finding.examples[:3]]
        hidden = finding.count - min(len(finding.examples), 3)
        if finding.examples and hidden > 0:
            lines.append(f'    ... and {hidden} more')
        if finding.hint:
            lines.append(f'    -> {finding.hint}')
    return '\n'.join(lines)


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    errors = sum(finding.level == 'error' for finding in findings)
    warnings = len(findings) - errors
    return (f'{errors} errors, {warnings} warnings: ' if findings else '') + (
        'mend the errors before you train' if errors else 'ready to train')

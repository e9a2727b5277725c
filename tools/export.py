"""Exports a trained network: for mmseg without mmseg_semi, or for programs without mmseg.

    python tools/export.py CONFIG CHECKPOINT plain --out exported/teacher            # config.py and checkpoint.pth
    python tools/export.py CONFIG CHECKPOINT onnx --out exported/teacher.onnx        # verified with onnxruntime
    python tools/export.py CONFIG CHECKPOINT torchscript --out exported/student.pt --network student
    python tools/export.py CONFIG CHECKPOINT torch.export --out exported/teacher.pt2
"""
import argparse
import sys
import warnings
from pathlib import Path

import mmseg_semi  # noqa: F401 (checks the set-up before the others are imported, and registers the parts)

# isort: split

from model_export.output import check_free
from model_export.source import load

from mmseg_semi.engine.give_up import Options


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a semi-supervised or a supervised segmentor')
    parser.add_argument('checkpoint', help='its checkpoint, a file')
    parser.add_argument('kind', choices=['plain', 'onnx', 'torchscript', 'torch.export'],
                        help='plain: for mmseg alone; the others: a graph from pixels to logits')
    parser.add_argument('--out', required=True, type=Path, help='plain: a folder; else a file; must not exist yet')
    parser.add_argument('--network', choices=['teacher', 'student'],
                        help='of a semi-supervised model; default: the one that model.eval_with names')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='settings that override the config')
    return parser.parse_args()


def main() -> None:
    """Loads, exports, verifies."""
    args = parse_args()
    check_free(args.out)
    source = load(args.config, args.checkpoint, args.network, args.cfg_options)
    if args.kind == 'plain':
        from model_export.plain import export_plain as export
    else:
        from model_export.graph import EXPORTERS
        export = EXPORTERS[args.kind]
    notes = export(source, args.out)
    print(f'{args.out}: {args.kind} of the {source.name} of {args.checkpoint}')
    for note in notes:
        print(f'  {note}')


if __name__ == '__main__':
    warnings.filterwarnings('ignore')  # of the exporters about their own insides
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, TypeError, OSError, ImportError, SyntaxError) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)

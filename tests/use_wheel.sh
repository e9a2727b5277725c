#!/usr/bin/env bash
# Uses an installed mmseg_semi as a user would who never saw the checkout: data, training, test, prediction, export.
#     bash tests/use_wheel.sh ENVIRONMENT         (a virtual environment; `make test-wheel` makes one)
set -euo pipefail
python=$(cd "$1" && pwd)/bin/python
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
unset PYTHONDONTWRITEBYTECODE # pip compiled nothing: what is imported first is compiled once
export OMP_NUM_THREADS=2 PYTHONWARNINGS=ignore
package=$("$python" -c 'import mmseg_semi; print(mmseg_semi.__path__[0])' | tail -1)
case $package in
    "${python%/bin/python}"/*) ;;
    *) echo "mmseg_semi comes from $package, expected the environment $1" >&2; exit 1 ;;
esac
tools=$package/.mim/tools config=$package/.mim/configs/pcr/pcr_tiny_shapes.py
mim() { "${python%/python}/mim" "$@"; }
say() { printf '\n[use_wheel] %s\n' "$*"; }

say 'configs that mim finds'
mim search mmseg_semi --model pcr | grep -A 6 pcr_tiny_shapes
say 'data'
"$python" "$tools/dataset_converters/make_shapes.py" --out data/shapes --num-labeled 8 --num-unlabeled 8 --num-val 2
say 'training'
mim train mmseg_semi pcr_tiny_shapes.py --gpus 0 --work-dir work --cfg-options train_cfg.max_iters=4 \
    train_cfg.val_interval=4 model.start_iter=2 default_hooks.checkpoint.interval=4 > train.log 2>&1 ||
    { tail -30 train.log; exit 1; }
grep 'mIoU' train.log | tail -1 || { tail -30 train.log; exit 1; }
say 'test'
mim test mmseg_semi pcr_tiny_shapes.py --checkpoint work/iter_4.pth --gpus 0 --work-dir tested > test.log 2>&1 ||
    { tail -30 test.log; exit 1; }
grep 'mIoU' test.log | tail -1 || { tail -30 test.log; exit 1; }
say 'prediction'
"$python" "$tools/predict.py" "$config" work/iter_4.pth data/shapes/img_dir/val --out predicted
[ "$(find predicted/masks -name '*.png' | wc -l)" -eq 2 ]
say 'export'
"$python" "$tools/export.py" "$config" work/iter_4.pth plain --out exported
say 'all of it works'

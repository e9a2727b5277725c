from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmseg_semi.engine.give_up import MISTAKES, give_up
from mmseg_semi.registry import DATASETS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def told(error, capsys, **cfg):
    with pytest.raises(SystemExit) as end:
        try:
            raise error
        except MISTAKES as raised:
            give_up(raised, Config(cfg) if cfg else None)
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize('config, variable, tool', [
    ('pcr/pcr_r101_voc.py', 'VOC_ROOT', 'voc_aug.py'),
    ('supervised/supervised_r101_cityscapes_u2pl_186.py', 'CITYSCAPES_ROOT', 'cityscapes.py'),
    ('self_training/st_lite0_camvid_24.py', 'CAMVID_ROOT', 'CAMVID_ROOT'),
])
def test_missing_data_come_with_the_tool_that_makes_them(config, variable, tool, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(variable, str(tmp_path / 'absent'))
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope('mmseg')
    with pytest.raises(MISTAKES) as error:
        DATASETS.build(cfg.train_dataloader.dataset)
    capsys.readouterr()
    message, hint = told(error.value, capsys, **cfg.to_dict()).split('How to make it: ')
    assert str(tmp_path / 'absent') in message.rpartition('error: ')[2] and tool in hint


def test_other_missing_files_have_no_hint(capsys):
    cfg = dict(data_root='data/voc', data_hint='make it')
    assert told(FileNotFoundError('weights.pth can not be found.'), capsys, **cfg) == (
        'error: weights.pth can not be found.\n')
    assert told(ValueError('data/voc is wrong'), capsys, **cfg) == 'error: data/voc is wrong\n'
    assert told(FileNotFoundError('nowhere.py'), capsys) == 'error: nowhere.py\n'


def test_assertions_about_anything_else_stay(capsys):
    with pytest.raises(AssertionError, match='internal'):
        try:
            raise AssertionError('internal')
        except MISTAKES as error:
            give_up(error)


def test_the_traceback_is_kept(tmp_path, capsys):
    printed = told(KeyError('x'), capsys, work_dir=str(tmp_path / 'new'))
    assert printed == f"error: KeyError: 'x'\nWhere it happened: {tmp_path}/new/traceback.txt\n"
    assert 'Traceback' in (tmp_path / 'new' / 'traceback.txt').read_text()

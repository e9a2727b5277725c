import argparse
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mmseg_semi.engine.give_up import MISTAKES, Options, give_up, is_of_data, read_config
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


def test_a_work_dir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert told(OSError('no space left'), capsys, work_dir=str(tmp_path / 'file/run')) == 'error: no space left\n'


class Broken:
    """A data set whose files are wrong."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise OSError('the cause')
        except OSError as cause:
            raise self.error from cause


@pytest.mark.parametrize('error, expected', [
    (ValueError('mask a.png holds labels [7]; expected 0..1: it is wrong'),
     'error: mask a.png holds labels [7]; expected 0..1: it is wrong\n'),
    (FileNotFoundError('no file b.jpg'), 'error: no file b.jpg\n'),
    (ValueError('two\n  lines'), 'error: two lines\n'),
    (KeyError('gt_seg_map'), "error: KeyError: 'gt_seg_map'\n"),
])
def test_what_a_worker_met_is_told_as_if_it_were_met_here(error, expected, capsys):
    with pytest.raises(type(error)) as met:
        next(iter(DataLoader(Broken(error), num_workers=1)))
    assert 'Original Traceback' in str(met.value) and is_of_data(met.value)
    capsys.readouterr()
    assert told(met.value, capsys) == expected
    assert not is_of_data(error) and is_of_data(FloatingPointError('the loss is nan'))


@pytest.mark.parametrize('words, expected', [
    (['a.b', '100'], "expected KEY=VALUE, found 'a.b'; put a value with blanks in quotes"),
    (['a=(1,', '2)'], "expected KEY=VALUE, found '2\\)'; put a value with blanks in quotes"),
    (['a=[(1,2)'], 'argument --cfg-options: .*'),
])
def test_options_that_are_none(words, expected, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=Options)
    assert parser.parse_args(['--cfg-options', 'a=1', 'b=(2,3)']).cfg_options == dict(a=1, b=(2, 3))
    with pytest.raises(SystemExit) as end:
        parser.parse_args(['--cfg-options', *words])
    assert end.value.code == 2
    assert re.search(expected, capsys.readouterr().err)


def test_a_config_that_cannot_be_read(tmp_path):
    (tmp_path / 'slip.py').write_text("classes = ('background', foreground)")
    with pytest.raises(ValueError, match="slip.py, or a file of its _base_, cannot be read: NameError: name 'foregr"):
        read_config(str(tmp_path / 'slip.py'))
    (tmp_path / 'config').write_text('a = 1')
    with pytest.raises(ValueError, match='config, or a file of its _base_, cannot be read: '):
        read_config(str(tmp_path / 'config'))
    with pytest.raises(FileNotFoundError):
        read_config(str(tmp_path / 'none.py'))

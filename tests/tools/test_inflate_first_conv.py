"""Weights of an RGB network for N bands."""
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

TOOL = Path(__file__).resolve().parents[2] / 'tools/model_converters/inflate_first_conv.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('inflate_first_conv', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('channels', [1, 4, 12])
def test_equal_bands_give_the_response_of_gray(tool, tmp_path, channels):
    torch.manual_seed(0)
    rgb = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 6, 1))
    torch.save(dict(state_dict=rgb.state_dict(), meta=dict(epoch=3)), tmp_path / 'rgb.pth')
    assert tool.main([str(tmp_path / 'rgb.pth'), str(tmp_path / 'n.pth'), '--in-channels', str(channels)]) == 0
    written = torch.load(tmp_path / 'n.pth', weights_only=True)
    assert written['meta'] == dict(epoch=3)
    network = nn.Sequential(nn.Conv2d(channels, 5, 3), nn.Conv2d(5, 6, 1))
    network.load_state_dict(written['state_dict'])
    gray = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(network(gray.repeat(1, channels, 1, 1)), rgb(gray.repeat(1, 3, 1, 1)))


def test_mistakes(tool, tmp_path, capsys):
    def told(*args):
        assert tool.main([str(arg) for arg in args]) == 2
        return capsys.readouterr().err

    out = tmp_path / 'out.pth'
    assert 'checkpoint not found' in told(tmp_path / 'none.pth', out, '--in-channels', 4)
    (tmp_path / 'folder').mkdir()
    assert 'folder is a folder; expected a file' in told(tmp_path / 'folder', out, '--in-channels', 4)
    (tmp_path / 'broken.pth').write_bytes(b'x')
    assert 'cannot be read as weights' in told(tmp_path / 'broken.pth', out, '--in-channels', 4)
    two = nn.ModuleDict(dict(a=nn.Conv2d(3, 2, 1), b=nn.Conv2d(3, 2, 1)))
    torch.save(two.state_dict(), tmp_path / 'two.pth')
    assert "2 convolutions take three channels: ['a.weight', 'b.weight']; name one" in told(
        tmp_path / 'two.pth', out, '--in-channels', 4)
    assert 'no convolution of three channels' in told(
        tmp_path / 'two.pth', out, '--in-channels', 4, '--key', 'c.weight')
    assert 'folder is a folder; expected a file' in told(
        tmp_path / 'two.pth', tmp_path / 'folder', '--in-channels', 4, '--key', 'a.weight')
    assert not out.exists() and not list(tmp_path.glob('*.part'))
    assert tool.main([str(tmp_path / 'two.pth'), str(out), '--in-channels', '4', '--key', 'b.weight']) == 0
    assert torch.load(out, weights_only=True)['b.weight'].shape == (2, 4, 1, 1)
